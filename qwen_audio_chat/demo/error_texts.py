"""The sentences of `UserError`s in the visitor's language.

The modules below the page speak English, as programs expect. To add a language, add a table like `CHINESE`.
"""

from collections.abc import Mapping

from ..errors import UserError

CHINESE = {  # English template → its translation, with the same names
    # audio.decoding, audio.audio, audio.features
    "Audio must be a path, bytes, a binary file or an array, not {kind}.":
        "音频必须是路径、字节、二进制文件或数组，而不是 {kind}。",
    "The audio file object gives text; open it in binary mode.":
        "音频文件对象返回了文本；请以二进制方式打开。",
    "The audio file is larger than {limit:g} MiB; cut or compress it first.":
        "音频文件超过 {limit:g} MiB；请先剪短或压缩。",
    "The audio file is empty (0 bytes); choose another one.":
        "音频文件为空（0 字节）；请选择其他文件。",
    "There is no audio file {name!r}; give the path of a file on this computer.":
        "找不到音频文件 {name!r}；请提供本机文件的路径。",
    "The audio file {name!r} can't be read ({reason}).":
        "无法读取音频文件 {name!r}（{reason}）。",
    "An audio array must have one or two dimensions, not {dimensions}.":
        "音频数组必须是一维或二维，而不是 {dimensions} 维。",
    "The file has no audio track; give a file with sound.":
        "文件中没有音轨；请提供有声音的文件。",
    "The file is damaged or not audio in a known format; give WAV, FLAC, MP3, Ogg, M4A or WebM.":
        "文件已损坏或格式未知；请提供 WAV、FLAC、MP3、Ogg、M4A 或 WebM。",
    "The audio is longer than the limit of {limit:g} seconds; cut it first.":
        "音频超过 {limit:g} 秒的上限；请先剪短。",
    "The audio is empty: it holds no samples that can be decoded.":
        "音频为空：没有可以解码的采样。",
    "The audio has too many samples; convert it to mono at 16 kHz first.":
        "音频采样过多；请先转换为 16 kHz 单声道。",
    "The sampling rate of {rate} Hz is outside {lowest} to {highest}; convert it first.":
        "采样率 {rate} Hz 不在 {lowest} 到 {highest} 之间；请先转换。",
    "Audio samples must be float, int8, uint8, int16 or int32, not {kind}.":
        "音频采样必须是 float、int8、uint8、int16 或 int32，而不是 {kind}。",
    "The audio holds NaN, infinity or values far outside -1 to 1; repair or scale it first.":
        "音频含有 NaN、无穷大或远超 -1 到 1 的数值；请先修复或缩放。",
    "Decoding the audio takes too long; convert it to WAV or cut it first.":
        "音频解码时间过长；请先转换为 WAV 或剪短。",
    "The audio file is damaged and can't be decoded; convert it to WAV first.":
        "音频文件已损坏，无法解码；请先转换为 WAV。",
    "The audio was deleted; add it again.":
        "音频已删除；请重新添加。",
    "The audio is empty: it holds no samples.":
        "音频为空：没有任何采样。",
    "An audio clip may last {limit:g} s at most; split longer audio first.":
        "每段音频最长 {limit:g} 秒；请先切分较长的音频。",
    # chat, prompts.chatml, engine.sampling
    "Ask a question or add an audio first.":
        "请先提问或添加音频。",
    "This needs {needed} tokens but the model holds {room} (25 per second of audio): use shorter audio, fewer clips or"
    " a shorter text.":
        "本次需要 {needed} 个词元，而模型最多容纳 {room} 个（每秒音频 25 个）：请使用更短的音频、更少的片段或更短的"
        "文字。",
    "This model's tokenizer lacks a tag of {task}.":
        "该模型的分词器缺少 {task} 的标签。",
    "A task in tags is about one audio, not {count}.":
        "标签任务只针对一段音频，而不是 {count} 段。",
    "max_new_tokens must be at least 1.":
        "max_new_tokens 必须至少为 1。",
    "temperature must be at least {lowest}, and repetition_penalty above 0.":
        "temperature 必须至少为 {lowest}，repetition_penalty 必须大于 0。",
    "top_p must be above 0 and at most 1, and top_k not negative.":
        "top_p 必须大于 0 且不超过 1，top_k 不能为负。",
    "seed must have at most 64 bits.":
        "seed 最多 64 位。",
    # demo.page_audio
    "This is {seconds} of audio, but the model holds about {limit}: use a shorter part.":
        "音频共 {seconds}，而模型最多容纳约 {limit}：请截取较短的部分。",
    # demo.conversation_files; these follow `texts.TEXTS["bad_import"]`
    "it is of another format.":
        "格式不同。",
    "a part of it is missing or damaged.":
        "内容缺失或损坏。",
    "it holds no messages.":
        "没有任何消息。",
    "a question in it has more than {limit} characters.":
        "其中一个问题超过 {limit} 个字符。",
    "it holds more than {limit} messages.":
        "消息超过 {limit} 条。",
    "it holds more than {limit} audios.":
        "音频超过 {limit} 段。",
    'a role must be "user" or "assistant".':
        "角色必须是 “user” 或 “assistant”。",
    "only a user's message can hold audio.":
        "只有用户的消息可以包含音频。",
}  # fmt: skip

TRANSLATIONS: Mapping[str, Mapping[str, str]] = {"zh": CHINESE}


def explain(error: UserError, lang: str) -> str:
    """The sentence of an error in the visitor's language; in English where there is no translation."""
    template = TRANSLATIONS.get(lang, {}).get(error.template, error.template)
    if not error.values:
        return template
    values = {name: explain(v, lang) if isinstance(v, UserError) else v for name, v in error.values.items()}
    return template.format(**values)
