"""The one family of errors that a user sees as a sentence; any other exception is a bug and keeps its traceback.

A sentence is a template and its values, so that the page can say the same thing in another language.
"""

from typing import Any


class UserError(ValueError):
    """What went wrong and what to do about it, as one sentence for the user.

    Args:
        template: the English sentence, with `{name}` where a value belongs.
        values: what belongs there; without values the template is the sentence, braces and all.

    Attributes:
        template, values: as given. A value may itself be a `UserError`.
    """

    def __init__(self, template: str, **values: Any):
        super().__init__(template.format(**values) if values else template)
        self.template, self.values = template, values
