"""The layers of shim/, compared with its #include lines. symbols.py runs these checks.

A folder uses itself and the folders below it, init.c uses all, and the command uses some. A module is a
header with the source of that name; modules include each other without a circle.
"""

import glob
import os
import re

TOP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
SHIM = os.path.join(TOP, "shim")

# From the bottom up; init.c is in no folder.
FOLDERS = ("base", "config", "wire", "stats", "conn", "pool", "hooks", "")
OF_THE_COMMAND = {"cli", "stats", "config", "base", "wire"}
# The private header of a folder belongs to the module that offers the folder to others.
PRIVATE = {"wire/internal": "wire/wire"}


def includes():
    """(file, what it includes) of every quoted #include."""
    for path in sorted(glob.glob(os.path.join(SHIM, "**", "*.[chS]"), recursive=True)):
        with open(path, encoding="ascii") as file:
            for name in re.findall(r'^\s*#\s*include\s+"(.*)"', file.read(), re.MULTILINE):
                yield os.path.relpath(path, SHIM), name


def may_use(folder):
    return OF_THE_COMMAND if folder == "cli" else FOLDERS[:FOLDERS.index(folder) + 1]


def module(path):
    """Lists (.def) and assembly are modules of their own."""
    name = re.sub(r"\.[ch]$", "", path)
    return PRIVATE.get(name, name)


def every_include_names_its_folder():
    return {f'{path}: "{name}"' for path, name in includes()
            if "/" not in name or ".." in name or not os.path.exists(os.path.join(SHIM, name))}


def no_include_points_up():
    return {f'{path}: "{name}"' for path, name in includes()
            if os.path.dirname(name) not in may_use(os.path.dirname(path))}


def no_module_includes_itself_through_others():
    """Repeatedly removes files that use nothing left, or that nothing left uses. Files that remain are in
    circles, or between two."""
    arrows = {(module(path), module(name)) for path, name in includes()}
    arrows = {(user, used) for user, used in arrows if user != used}
    while inner := {(user, used) for user, used in arrows
                    if any(user == one for _, one in arrows) and any(used == one for one, _ in arrows)}:
        if inner == arrows:
            break
        arrows = inner
    return {f"{user} -> {used}" for user, used in inner}


CHECKS = (every_include_names_its_folder, no_include_points_up,
          no_module_includes_itself_through_others)
