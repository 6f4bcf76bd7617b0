"""The table of the cases: which numbers are as they must be, and FAULTS.md."""

from faults.cases import CASES

HEAD = """# Faults

Made by `{command}` alone; [README.md](README.md) says how. Change nothing here: measure anew.

{machine} Library {digest}.{old}

*plain* is without the library, *shim* with it{column}. Each answer was compared with its key; a wrong one would
stand here instead of a number. A row without *must* is context.

"""


def cell(answer, index):
    if answer is None:
        return ""
    if "numbers" in answer:
        value = answer["numbers"][index]
        return f"{value:.2f}" if isinstance(value, float) else str(value)
    return answer.get("skipped", answer.get("error"))


def verdict(row, answers, index):
    """"yes", "**no**", or nothing where there is nothing to meet."""
    shim, plain = answers["shim"], answers.get("plain")
    if not row.met or any(answer and "skipped" in answer for answer in (shim, plain)):
        return ""
    if any(answer and "error" in answer for answer in (shim, plain)):
        return "**no**"
    return "yes" if row.met(shim["numbers"][index], plain and plain["numbers"][index]) else "**no**"


def table(results, columns):
    """The table of RESULTS, {case: {column: answer}}, and the names of the cases whose musts are not met."""
    lines = [["case", "what is counted", *columns, "must", "met"]]
    missed = []
    for name, answers in results.items():
        if "skipped" in answers["shim"]:
            lines.append([f"`{name}`", "skipped: " + answers["shim"]["skipped"], *[""] * len(columns), "", ""])
            continue
        for index, row in enumerate(CASES[name].rows):
            met = verdict(row, answers, index)
            lines.append(["" if index else f"`{name}`", row.what,
                          *(cell(answers.get(column), index) for column in columns), row.must, met])
            if "no" in met and name not in missed:
                missed.append(name)
    rule = ["---", "---", *["---:"] * len(columns), "---", "---"]
    return "\n".join("| " + " | ".join(line) + " |" for line in [lines[0], rule, *lines[1:]]), missed


def text(results, columns):
    lines, missed = table(results, columns)
    return f"{lines}\n\n" + (f"Not met: {', '.join(missed)}." if missed else "All musts are met.") + "\n"


def document(results, columns, machine, digest, old):
    return HEAD.format(command="make bench SUBJECTS=faults" + (f" OLD={old}" if old else ""), machine=machine,
                       digest=digest, old=f" *old* is the library of commit {old}." if old else "",
                       column=", *old* with an older one" if old else "") + text(results, columns)
