"""The web page: many audios, many turns, in a browser. `build_demo` stands in `page`, `launch` in `launch`."""
