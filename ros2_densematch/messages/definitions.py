"""Where the package's message and service definitions lie: one set of files for rosidl, bags and topics."""

from __future__ import annotations

from ros2_densematch.files.shipped import share_folder

PACKAGE = "densematch"


def message_definitions() -> dict[str, str]:
    """Type name (`densematch/msg/Correspondences`, `densematch/srv/MatchPair_Request`, ...) -> definition text."""
    folder = share_folder()
    found = {f"{PACKAGE}/msg/{path.stem}": path.read_text("utf-8") for path in sorted((folder / "msg").glob("*.msg"))}
    for path in sorted((folder / "srv").glob("*.srv")):
        request, separator, response = path.read_text("utf-8").partition("\n---\n")
        if not separator:
            raise ValueError(f"{path} has no line '---' between request and response: install the package again")
        found[f"{PACKAGE}/srv/{path.stem}_Request"] = request + "\n"
        found[f"{PACKAGE}/srv/{path.stem}_Response"] = response
    return found
