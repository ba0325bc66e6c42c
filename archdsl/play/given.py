"""What `archdsl play` opens: a spec, and the weights and the tokenizer that belong to it."""

from __future__ import annotations

from archdsl.frozen import Frozen


class Given(Frozen):
    """The text of a spec with the name of its model, and paths.

    - `title`: what the page calls it.
    - `folder`: where the files are that the spec uses; by default the standard library.
    - `checkpoint`: a published checkpoint or a run, of which `text` is the spec.
    - `weights`: the file or folder of the weights, and `map` the title of their block.
    - `tokenizer`: its path; `needs_tokenizer`: without it, a run is refused.
    - `files`: a folder with the preprocessor of images, and the names of classes.
    - `device`, `dtype`: those of `archdsl.compile`.
    """

    text: str = ""
    model: str | None = None
    title: str = ""
    folder: str | None = None
    checkpoint: str | None = None
    weights: str | None = None
    map: str | None = None
    tokenizer: str | None = None
    needs_tokenizer: bool = False
    files: str | None = None
    device: str | None = None
    dtype: str | None = None
