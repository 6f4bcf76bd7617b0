"""The table of cases: which numbers are as they must be."""


def cell(answer, index):
    if answer is None:
        return ""
    if "numbers" in answer:
        value = answer["numbers"][index]
        if isinstance(value, float):
            return f"{value:.3f}" if abs(value) < 0.1 else f"{value:.2f}"
        return str(value)
    return answer.get("skipped", answer.get("error"))


def verdict(row, answers, index):
    """"yes", "**no**", or nothing where there is nothing to meet."""
    shim, plain = answers["shim"], answers.get("plain")
    if not row.met or any(answer and "skipped" in answer for answer in (shim, plain)):
        return ""
    if any(answer and "error" in answer for answer in (shim, plain)):
        return "**no**"
    return "yes" if row.met(shim["numbers"][index], plain and plain["numbers"][index]) else "**no**"


def table(cases, results, columns):
    """The table of RESULTS, {case: {column: answer}}, of CASES, and the names of the cases whose musts are not met."""
    lines = [["case", "what is counted", *columns, "must", "met"]]
    missed = []
    for name, answers in results.items():
        if "skipped" in answers["shim"]:
            lines.append([f"`{name}`", "skipped: " + answers["shim"]["skipped"], *[""] * len(columns), "", ""])
            continue
        for index, row in enumerate(cases[name].rows):
            met = verdict(row, answers, index)
            lines.append(["" if index else f"`{name}`", row.what,
                          *(cell(answers.get(column), index) for column in columns), row.must, met])
            if "no" in met and name not in missed:
                missed.append(name)
    rule = ["---", "---", *["---:"] * len(columns), "---", "---"]
    return "\n".join("| " + " | ".join(line) + " |" for line in [lines[0], rule, *lines[1:]]), missed


def text(cases, results, columns):
    lines, missed = table(cases, results, columns)
    return f"{lines}\n\n" + (f"Not met: {', '.join(missed)}." if missed else "All musts are met.") + "\n"
