"""Every text of the page, in English and Chinese; only the sentences of errors are in `error_texts`.

Fixed labels are translated in the browser (`I18N`, `label`). What is made while answering is translated here, by the
Accept-Language header of the request (`language`, `text`).
"""

from typing import Any

import gradio as gr

from .gradio_internals import browser_texts
from .presets import PRESETS

TEXTS = {
    "tagline": ("Talk about any sound", "聊聊任何声音"),
    "welcome": (
        "Drop in one or several audios: speech, music, any sound.\nAsk, compare, go on asking.",
        "放入一段或多段音频：语音、音乐或任何声音。\n提问、比较、继续追问。",
    ),
    "box": ("Ask about your audio", "聊聊您的音频"),
    "box_label": ("Message", "消息"),
    "conversation": ("Conversation", "对话"),
    "new_chat": ("New chat", "新对话"),
    "settings": ("How to answer", "回答方式"),
    "do_sample": ("Vary the answers", "回答多样化"),
    "do_sample_info": ("Off: the same question gets the same answer", "关闭时，同样的问题得到同样的回答"),
    "temperature": ("Temperature", "温度"),
    "top_p": ("Top-p", "Top-p"),
    "top_k": ("Top-k (0: off)", "Top-k（0 为关闭）"),
    "repetition_penalty": ("Repetition penalty", "重复惩罚"),
    "max_new_tokens": ("Longest answer (tokens)", "最长回答（词元）"),
    "seed": ("Seed (empty: random)", "随机种子（留空为随机）"),
    "translate_to": ("Translate into", "翻译成"),
    "keep": ("Keep this conversation", "保存对话"),
    "export_markdown": ("Export as Markdown", "导出 Markdown"),
    "export_json": ("Export with audios (JSON)", "连同音频导出（JSON）"),
    "import": ("Import JSON", "导入 JSON"),
    "privacy": ("Your data", "您的数据"),
    "privacy_note": (
        "Audio and text stay on this server, for you alone, and leave it 30 minutes after you close the page.",
        "音频和文字仅为您保存在本服务器上，关闭页面 30 分钟后删除。",
    ),
    "delete": ("Delete my data now", "立即删除我的数据"),
    "deleted": ("Your conversation and your audios are deleted.", "您的对话和音频已删除。"),
    "empty": ("Type a message or add an audio first.", "请先输入消息或添加音频。"),
    "busy": ("The answer is still on its way: stop it or wait a moment.", "回答尚未完成：请停止或稍候。"),
    "add_audio": ("Add an audio first, then choose what to do with it.", "请先添加音频，再选择任务。"),
    "bad_file": ("{name}: {error}", "{name}：{error}"),
    "many_files": ("At most {limit} audios go into one message.", "一条消息最多包含 {limit} 段音频。"),
    "long_text": ("The text is too long: keep it under {limit} characters.", "文字太长：请少于 {limit} 个字符。"),
    "decoding": ("Reading {name}", "正在读取 {name}"),
    "waiting": ("Waiting for the model", "等待模型"),
    "listening": ("Listening", "正在聆听"),
    "no_answer": ("The answer was stopped before it began.", "回答在开始之前已停止。"),
    "silent": ("The model has nothing to say to this.", "模型对此没有回答。"),
    "failed": (
        "Something went wrong here; your conversation is kept. Try again.",
        "出了点问题；您的对话已保留，请重试。",
    ),
    "queue_full": (
        "Too many visitors are waiting; your message is kept. Try again in a minute.",
        "等待的访客太多；您的消息已保留，请一分钟后重试。",
    ),
    "gone": (
        "The server no longer has this conversation. Copy what you need, then load the page again.",
        "服务器上已没有此对话。请先复制需要的内容，然后刷新页面。",
    ),
    "draining": ("The server is about to restart. Try again in a minute.", "服务器即将重启，请一分钟后重试。"),
    "stopped": ("Stopped", "已停止"),
    "length": ("The answer reached its length limit", "回答已达长度上限"),
    "repetition": ("Stopped, because the answer began to repeat itself", "回答开始重复，已停止"),
    "split": (
        "Audio {number} lasts {seconds} and was heard in {pieces} pieces.",
        "音频 {number} 长 {seconds}，已分为 {pieces} 段聆听。",
    ),
    "dropped": (
        "The context is full: the model no longer knows your oldest questions ({turns}).",
        "上下文已满：模型不再记得最早的 {turns} 轮对话。",
    ),
    "continue": ("Continue", "继续"),
    "imported": ("The conversation is imported.", "对话已导入。"),
    "bad_import": (
        "This is not a conversation exported from here: {error}",
        "这不是从此处导出的对话：{error}",
    ),
    "nothing_to_export": ("There is no conversation to export yet.", "还没有可导出的对话。"),
    "context": ("context {used} of {limit}", "上下文 {used}/{limit}"),
    "first_token": ("first word after {seconds} s", "首字 {seconds} 秒"),
    "speed": ("{speed} tokens/s", "{speed} 词元/秒"),
    "reused": ("{tokens} tokens reused", "复用 {tokens} 词元"),
    "audio": ("Audio {number}", "音频 {number}"),
    "play": ("Play {what}", "播放{what}"),
    "position": ("Position in {what}", "{what}的位置"),
    "picture": ("What the model hears of {what}: its log-mel spectrogram", "模型听到的{what}：对数梅尔频谱图"),
    "transcript": ("Words with times", "带时间的文字"),
    "spans": ("Places in {what}", "{what}中的片段"),
    "you": ("You", "您"),
    "assistant": ("Qwen-Audio-Chat", "Qwen-Audio-Chat"),
}
TEXTS |= {f"task_{task}": title for task, title in PRESETS.items()}
LANGUAGES = ("en", "zh")

I18N = browser_texts(TEXTS)


def label(key: str) -> Any:
    """A fixed text, translated in the browser; it stands where Gradio takes a string."""
    return I18N(key)


def language(request: gr.Request | None) -> str:
    """Return "zh" if the browser asks for Chinese first, else "en"."""
    header = request.headers.get("accept-language", "") if request is not None else ""
    return "zh" if header.strip().lower().startswith("zh") else "en"


def text(key: str, lang: str, **values) -> str:
    """A text in the visitor's language."""
    return TEXTS[key][LANGUAGES.index(lang)].format(**values)


def duration(seconds: float) -> str:
    """Seconds as a clock shows them: `4.2 s`, `0:15`, `12:34`, `1:02:03`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
