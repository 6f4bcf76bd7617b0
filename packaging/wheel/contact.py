"""The maintainer and the project's address for the wheel, from packaging/contact."""

import os

from hatchling.metadata.plugin.interface import MetadataHookInterface


def contact(root):
    """The lines of packaging/contact: NAME=value."""
    with open(os.path.join(root, "packaging", "contact"), encoding="utf-8") as file:
        return dict(line.rstrip("\n").split("=", 1) for line in file if not line.startswith("#"))


class Contact(MetadataHookInterface):
    def update(self, metadata):
        known = contact(self.root)
        metadata["maintainers"] = [{"name": known["MAINTAINER_NAME"], "email": known["MAINTAINER_EMAIL"]}]
        metadata["urls"] = {"Homepage": known["HOMEPAGE"]} if known["HOMEPAGE"] else {}
