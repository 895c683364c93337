"""What CPython says of patterns: reads a question as JSON, answers as JSON.

{"rows": [[pattern, [text, ...]], ...]}
    "rows": for each pattern the error's text, or for each text true, false, or null where Python itself broke down
{"classes": [pattern, ...]}
    "assigned": all characters that this Python knows; "classes": those of them that each pattern matches, as ranges
{"families": true}
    "families": for each character with a case, those that it matches under (?i)
"""

import json
import re
import sys
import unicodedata
import warnings


def row(pattern, texts):
    try:
        compiled = re.compile(pattern)
    except (re.error, OverflowError, ValueError, RecursionError) as error:
        return str(error) or type(error).__name__
    return [answer(compiled, text) for text in texts]


def answer(compiled, text):
    try:
        return compiled.fullmatch(text) is not None
    except SystemError:
        return None


def ranges(characters):
    found = []
    for c in characters:
        if found and found[-1][1] == ord(c) - 1:
            found[-1][1] += 1
        else:
            found.append([ord(c), ord(c)])
    return found


def main():
    warnings.simplefilter("ignore")
    question = json.load(sys.stdin)
    assigned = [c for c in map(chr, range(sys.maxunicode + 1)) if unicodedata.category(c) not in ("Cn", "Cs", "Co")]
    result = {"version": list(sys.version_info[:3]), "rows": [row(*r) for r in question.get("rows", [])]}
    if "classes" in question:
        result["assigned"] = ranges(assigned)
        result["classes"] = [ranges(filter(re.compile(p).fullmatch, assigned)) for p in question["classes"]]
    if "families" in question:
        cased = [c for c in assigned if c != c.lower() or c != c.upper()]
        text = "".join(cased)
        result["families"] = {c: re.findall("(?i)" + c, text) for c in cased}
    json.dump(result, sys.stdout)


main()
