"""The symbol audit: what the library exports, imports, and leaves unhooked.

Usage: symbols.py LIBRARY. Compares the library with shim/hooks/hooks.def and with the libc of this machine:
every other name of a hooked function in libc is hooked too, or is in exceptions.txt with a reason. Also checks
the layers of shim/ (layers.py) and the words of code and documents (words.py). The last line counts like a
test's.
"""

import os
import re
import subprocess
import sys

import layers
import words

HERE = os.path.dirname(os.path.abspath(__file__))
HOOKS = os.path.join(HERE, "..", "..", "shim", "hooks", "hooks.def")
EXCEPTIONS = os.path.join(HERE, "exceptions.txt")

# How glibc names the relatives of a function: parts before and behind its bare name.
BEFORE = ("", "_", "__", "__libc_", "_IO_", "_IO_new_", "_IO_old_", "__new_", "__old_")
BEHIND = ("64", "v2", "64v2", "_chk", "64_chk", "_2", "_nocancel", "64_nocancel", "_unlocked",
          "_time64", "_internal")

# What a library may not call in another program's process.
FORBIDDEN = re.compile(r"^(malloc|calloc|realloc|reallocarray|free|strdup|abort|exit|_exit|_Exit|"
                       r"quick_exit|raise|kill|__assert.*|(secure_)?getenv|setenv|putenv|"
                       r"pthread_create|dlopen|.*printf.*|f?puts|fopen|fwrite|perror|syslog|"
                       r"__tls_get_addr)$")

# Relocations of thread-local variables that are found by a call, which may allocate, instead of at a fixed
# offset.
DYNAMIC_TLS = re.compile(r"\bR_\w*(?:DTPMOD|DTPOFF|DTPREL|TLSDESC|TLS_DTV)\w*")

# The oldest supported glibc.
OLDEST_GLIBC = (2, 28)

# Functions newer than that; where they are missing the hook makes the bare system call.
NEWER = {"close_range", "closefrom", "_Fork", "epoll_pwait2", "pidfd_getfd"}


def output(*command):
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


def names(*nm):
    """The symbol names nm prints, with their versions cut off."""
    return {line.split()[-1].split("@")[0] for line in output("nm", "-D", *nm).splitlines()}


def hook_list():
    with open(HOOKS, encoding="ascii") as file:
        return re.sub(r"/\*.*?\*/", "", file.read(), flags=re.DOTALL)


def foreign_hooks():
    """Hooks of other libraries' functions, as nm prints a version that is not the default."""
    return {f"{name}@{version}" for name, version
            in re.findall(r'\bHOOK_FOREIGN\([^,]+,\s*(\w+),\s*"([^"]+)"', hook_list())}


def newer_than_supported(path, readelf="readelf"):
    """The versions of glibc that the program or library PATH needs, as far as they are too new. When one appears,
    see base/older.h."""
    needed = re.findall(r"Name: GLIBC_([\d.]+)", output(readelf, "-VW", path).split("Version needs section")[-1])
    assert needed, path
    return {f"{os.path.basename(path)}: GLIBC_{version}" for version in needed
            if tuple(map(int, version.split("."))) > OLDEST_GLIBC}


def exported(library, nm="nm"):
    """The names that a library defines, with symbol versions but without the versions' own names."""
    return {line.split()[-1]
            for line in output(nm, "-D", "--defined-only", library).splitlines() if " A " not in line}


def listed_hooks():
    """The libc functions in hooks.def, and their aliases."""
    text = hook_list()
    hooks = set(re.findall(r"\bHOOK\([^,]+,\s*(\w+)\s*,", text))
    hooks |= set(re.findall(r"\bHOOK_CHILD\((\w+)\)", text))
    return hooks, set(re.findall(r"\bALIAS\((\w+)\s*,", text))


def exceptions():
    """Names that are not hooked on purpose, each with its reason."""
    with open(EXCEPTIONS, encoding="ascii") as file:
        lines = [line.split(None, 1) for line in file if line.strip() and line[0] != "#"]
    return [(line[0], line[1].strip() if len(line) > 1 else "") for line in lines]


def bare(name):
    """The name without the words glibc puts around it."""
    for end in sorted(BEHIND, key=len, reverse=True):
        if name.endswith(end):
            name = name[:-len(end)]
            break
    for start in sorted(BEFORE, key=len, reverse=True):
        if name.startswith(start):
            return name[len(start):]
    return name


def libc_path():
    for line in output("ldd", sys.executable).splitlines():
        if "libc.so.6" in line:
            return line.split()[2]
    raise RuntimeError("no libc.so.6")


class Audit:
    def __init__(self, library):
        self.library = library
        self.hooks, self.aliases = listed_hooks()
        self.exceptions = exceptions()
        self.libc = names("--defined-only", libc_path())
        self.imports = names("--undefined-only", library)
        self.dynamic = output("readelf", "-dW", library)
        self.segments = output("readelf", "-lW", library)
        self.relocations = output("readelf", "-rW", library)

    def exports_are_the_list(self):
        """Functions of libc have no version, those of other libraries have one."""
        return exported(self.library) ^ (self.hooks | self.aliases | foreign_hooks())

    def no_foreign_hook_has_the_first_version(self):
        """The loader binds references without a version to a library's first version."""
        defined = re.findall(r"Index: (\d+)\b.*?Name: (\S+)", output("readelf", "-VW", self.library))
        first = {name for index, name in defined if index in ("1", "2")}
        return {name for name in foreign_hooks() if not first or name.split("@")[1] in first}

    def every_hook_is_a_libc_function(self):
        return (self.hooks | self.aliases) - self.libc - NEWER

    def no_relative_is_forgotten(self):
        """Also relatives of functions that are not hooked on purpose: each name needs a reason of its own."""
        known = self.hooks | self.aliases | {name for name, _ in self.exceptions}
        families = {bare(name) for name in known}
        return {name for name in self.libc if bare(name) in families} - known

    def every_exception_has_a_reason_and_is_needed(self):
        listed = [name for name, _ in self.exceptions]
        return ({name for name, reason in self.exceptions if not reason}
                | {name for name in listed if name in self.hooks | self.aliases}
                | {name for name in listed if listed.count(name) > 1})

    def nothing_forbidden_is_imported(self):
        return {name for name in self.imports if FORBIDDEN.match(name)}

    def only_libc_is_needed(self):
        needed = set(re.findall(r"\(NEEDED\).*\[(.*?)\]", self.dynamic))
        return needed - {"libc.so.6", "libdl.so.2", "libpthread.so.0"} - {
            name for name in needed if name.startswith("ld-linux")}

    def library_and_command_run_with_the_oldest_glibc(self):
        return newer_than_supported(self.library) | newer_than_supported(
            os.path.join(os.path.dirname(self.library), "mcpool"))

    def command_needs_only_libc(self):
        dynamic = output("readelf", "-dW", os.path.join(os.path.dirname(self.library), "mcpool"))
        return set(re.findall(r"\(NEEDED\).*\[(.*?)\]", dynamic)) - {"libc.so.6"}

    def it_is_hardened(self):
        missing = {word for word in ("BIND_NOW", "NODELETE") if word not in self.dynamic}
        missing |= {"TEXTREL"} if "TEXTREL" in self.dynamic else set()
        missing |= {"RELRO"} if "GNU_RELRO" not in self.segments else set()
        stack = re.search(r"GNU_STACK.*?(RWE?)\s", self.segments)
        missing |= {"executable stack"} if not stack or "E" in stack.group(1) else set()
        missing |= {"writable code"} if re.search(r"LOAD.* RWE ", self.segments) else set()
        return missing

    def thread_local_variables_need_no_call(self):
        return set(DYNAMIC_TLS.findall(self.relocations))

    def _code_of(self, name):
        """The instructions of an exported function. objdump shows it under its last alias, so it is looked up by
        address."""
        [address] = re.findall(rf"^0*([0-9a-f]+) . {name}$",
                               output("nm", "-D", "--defined-only", self.library), re.MULTILINE)
        start = int(address, 16)
        lines = output("objdump", "-d", f"--start-address={start}", f"--stop-address={start + 64}",
                       self.library).splitlines()
        return "\n".join(line.split("\t", 2)[2] for line in lines if line.count("\t") >= 2)

    def popen_and_system_are_a_jump(self):
        wrong = set()
        for name in ("popen", "system"):
            before, *after = re.split(r"jmp +\*|\bbr\t", self._code_of(name))
            if not after or re.search(r"\b(call|bl|blr|push|stp|ret)\b", before):
                wrong.add(name)
        return wrong

    def vfork_has_no_frame(self):
        """The child of vfork() would overwrite it. What the hook pushes before the system call it takes off, with
        the return address on x86-64; the child leaves at once."""
        before, *after = re.split(r"^(?:syscall|svc\b.*)$", self._code_of("vfork"), flags=re.MULTILINE)
        is_clean = after and re.search(
            r"(call|bl)\b[^\n]*\n(add +\$0x8,%rsp\npop +%rdi|ldp\tx29, x30, \[sp\], #16)\n(mov[^\n]*\n)+$", before) \
            and re.match(r"\n(test[^\n]*\n)?(jne|cbnz)\b[^\n]*\n(jmp +\*%rdi|ret)\n", after[0])
        return set() if is_clean else {"vfork"}

    def dlopen_ends_in_a_jump(self):
        """The real dlopen() finds its caller's RUNPATH by the return address. Checked for both compilers."""
        wrong = set()
        built = os.path.dirname(self.library)
        for library in (self.library, *(os.path.join(built, compiler, "libmcpool.so")
                                        for compiler in ("gcc", "clang"))):
            lines = output("objdump", "-d", "--disassemble=dlopen", library).splitlines()
            code = [line.split("\t")[2] for line in lines if line.count("\t") == 2]
            code = [line for line in code if not re.match(r"(nop|data16|cs nop|xchg +%ax,%ax)", line)]
            if not code or not re.match(r"(notrack )?jmp +\*|br\b", code[-1]) \
                    or sum(bool(re.match(r"(addr32 )?call|blr?\b", line)) for line in code) > 1:
                wrong.add(library)
        return wrong


CHECKS = [name for name in vars(Audit) if not name.startswith("_")]


def checks(library):
    """(name, function without arguments that returns what is wrong) of every check."""
    audit = Audit(library)
    return ([(name, getattr(audit, name)) for name in CHECKS]
            + [(check.__name__, check) for check in layers.CHECKS + words.CHECKS])


def main():
    found = checks(sys.argv[1])
    failed = 0
    for name, check in found:
        wrong = check()
        failed += bool(wrong)
        print(f"{'FAILED' if wrong else 'ok    '} {name.replace('_', ' ')}"
              + "".join(f"\n       {line}" for line in sorted(wrong)))
    print(f"{len(found) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
