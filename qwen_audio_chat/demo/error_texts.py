"""What the package says of audios and conversations that can't be used, in the visitor's language.

The modules below the page speak English, as programs expect. Here each of their sentences has its Chinese.
"""

import re

CHINESE = {  # sentence, with {} for what is filled in → its translation
    "Ask a question or add an audio first.":
        "请先提问或添加音频。",
    "This needs {} tokens but the model holds {} (25 per second of audio): use shorter audio, fewer clips or a shorter"
    " text.":
        "本次需要 {} 个词元，而模型最多容纳 {} 个（每秒音频 25 个）：请使用更短的音频、更少的片段或更短的文字。",
    "The audio is empty: it holds no samples.":
        "音频为空：没有任何采样。",
    "An audio clip may last {} s at most; split longer audio first.":
        "每段音频最长 {} 秒；请先切分较长的音频。",
    "Audio must be a path, bytes, a binary file or an array, not {}.":
        "音频必须是路径、字节、二进制文件或数组，而不是 {}。",
    "The audio file object gives text; open it in binary mode.":
        "音频文件对象返回了文本；请以二进制方式打开。",
    "The audio file is larger than {} MiB; cut or compress it first.":
        "音频文件超过 {} MiB；请先剪短或压缩。",
    "The audio file is empty (0 bytes); choose another one.":
        "音频文件为空（0 字节）；请选择其他文件。",
    "There is no audio file {}; give the path of a file on this computer.":
        "找不到音频文件 {}；请提供本机文件的路径。",
    "The audio file {} cannot be read ({}).":
        "无法读取音频文件 {}（{}）。",
    "An audio array must have one or two dimensions, not {}.":
        "音频数组必须是一维或二维，而不是 {} 维。",
    "The file has no audio track; give a file with sound.":
        "文件中没有音轨；请提供有声音的文件。",
    "The file is damaged or not audio in a known format; give WAV, FLAC, MP3, Ogg, M4A or WebM.":
        "文件已损坏或格式未知；请提供 WAV、FLAC、MP3、Ogg、M4A 或 WebM。",
    "The audio is longer than the limit of {} seconds; cut it first.":
        "音频超过 {} 秒的上限；请先剪短。",
    "The audio is empty: it holds no samples that can be decoded.":
        "音频为空：没有可以解码的采样。",
    "The audio has too many samples; convert it to mono at 16 kHz first.":
        "音频采样过多；请先转换为 16 kHz 单声道。",
    "The sampling rate of {} Hz is outside {} to {}; convert it first.":
        "采样率 {} Hz 不在 {} 到 {} 之间；请先转换。",
    "Audio samples must be float, int8, uint8, int16 or int32, not {}.":
        "音频采样必须是 float、int8、uint8、int16 或 int32，而不是 {}。",
    "The audio holds NaN, infinity or values far outside -1 to 1; repair or scale it first.":
        "音频含有 NaN、无穷大或远超 -1 到 1 的数值；请先修复或缩放。",
    "Decoding the audio takes too long; convert it to WAV or cut it first.":
        "音频解码时间过长；请先转换为 WAV 或剪短。",
    "The audio file is damaged and cannot be decoded; convert it to WAV first.":
        "音频文件已损坏，无法解码；请先转换为 WAV。",
    "it is of another format.":
        "格式不同。",
    "a part of it is missing or damaged.":
        "内容缺失或损坏。",
    "it holds no messages.":
        "没有任何消息。",
    "a question in it has more than {} characters.":
        "其中一个问题超过 {} 个字符。",
    "it holds more than {} messages.":
        "消息超过 {} 条。",
    "it holds more than {} audios.":
        "音频超过 {} 段。",
    'a role must be "user" or "assistant".':
        "角色必须是 “user” 或 “assistant”。",
    "only a user's message can hold audio.":
        "只有用户的消息可以包含音频。",
}  # fmt: skip


def explain(error: Exception, lang: str) -> str:
    """The sentence of an error in the visitor's language; in English where nobody has translated it."""
    sentence = str(error)
    if lang == "zh":
        for english, chinese in CHINESE.items():
            pattern = "(.+)".join(map(re.escape, english.split("{}")))
            if found := re.fullmatch(pattern, sentence, re.DOTALL):
                return chinese.format(*found.groups())
    return sentence
