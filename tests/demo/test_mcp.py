"""The MCP tool, through a client; needs Gradio's extra: pip install "gradio[mcp]"."""

import asyncio
import base64
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from mcp import ClientSession
from mcp.client.streamable_http import streamablehttp_client

FILE = {"meta": {"_type": "gradio.FileData"}}


def call(demo, name: str, arguments: dict) -> tuple[bool, str]:
    """(whether it is an error, text) of calling a tool."""

    async def run():
        async with streamablehttp_client(f"{demo.local_url}gradio_api/mcp/") as (read, write, _):
            async with ClientSession(read, write) as session:
                await session.initialize()
                assert [tool.name for tool in (await session.list_tools()).tools] == ["listen"]
                return await session.call_tool(name, arguments)

    with ThreadPoolExecutor(1) as thread:  # the browser of other tests keeps this thread's event loop running
        result = thread.submit(asyncio.run, run()).result()
    return result.isError, result.content[0].text


@pytest.mark.slow
def test_a_tool_hears_two_audios(demo, clips, page_chat):
    data = base64.b64encode(clips["low"].read_bytes()).decode()
    with clips["high"].open("rb") as file:
        path = httpx.post(f"{demo.local_url}gradio_api/upload", files={"files": file}).json()[0]
    audios = f"data:audio/wav;base64,{data} {demo.local_url}gradio_api/file={path}"
    is_error, answer = call(demo, "listen", {"audios": audios, "question": "Which one is higher?"})
    content = [{"type": "audio", "audio": str(clips[name])} for name in ("low", "high")]
    message = {"role": "user", "content": [*content, {"type": "text", "text": "Which one is higher?"}]}
    assert (is_error, answer) == (False, page_chat.stream([message]).finish().text)


@pytest.mark.parametrize("source", ["path", "address", "file", "data"])
def test_no_tool_reads_a_file_of_the_server(demo, clips, source):
    path = str(clips["low"])
    audios = {
        "path": path,
        "address": f"{demo.local_url}gradio_api/file={path}",
        "file": {"path": path, **FILE},
        "data": "data:audio/wav;base64,?",
    }[source]
    for name, arguments in (
        ("listen", {"audios": audios, "question": "What?"}),
        ("ask", {"files": [audios], "question": "What?"}),
    ):
        is_error, text = call(demo, name, arguments)
        assert is_error and len(text) < 300, text
