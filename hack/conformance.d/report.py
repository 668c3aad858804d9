"""Reads the JSON reports of hack/conformance in one or more folders and prints, as Markdown, what tests/conformance.md keeps:
counts and times of each runtime, every spec that did not pass with the suite's reason, and the slowest ones.
Exits with 1 if a spec failed on Wherry, or if none ran."""

import datetime
import json
import pathlib
import re
import sys

# Labels that a spec's name repeats in brackets.
TAGS = re.compile(r"\s*\[(Conformance|NodeConformance|LinuxOnly|Serial|Slow|Disruptive)\]")


def specs(report):
    """Name -> (state, reason, seconds) of every spec that the run chose."""
    found = {}
    for suite in report:
        for spec in suite["SpecReports"] or []:
            if spec["LeafNodeType"] != "It":
                continue
            # What a filter leaves out is skipped too, without having run and without a word.
            reason = (spec.get("Failure") or {}).get("Message", "").strip().split("\n")[0]
            if spec["State"] == "skipped" and not reason:
                continue
            name = " ".join([*(spec["ContainerHierarchyTexts"] or []), spec["LeafNodeText"]])
            found[TAGS.sub("", name)] = (spec["State"], reason, spec.get("RunTime", 0) / 1e9)
    return found


def counts(found):
    passed = sum(state == "passed" for state, _, _ in found.values())
    skipped = sum(state in ("skipped", "pending") for state, _, _ in found.values())
    return passed, len(found) - passed - skipped, skipped


def main(folders):
    # Runs of other specs of a runtime count as one.
    reports = {}
    for path in sorted((path for folder in folders for path in pathlib.Path(folder).glob("*.json")), reverse=True):
        reports.setdefault(path.stem, []).extend(json.loads(path.read_text()))
    runs = {name: specs(report) for name, report in reports.items()}
    print("\n| runtime | passed | failed | skipped | of | took | sum of all specs |\n|---|---|---|---|---|---|---|")
    for name, found in runs.items():
        passed, failed, skipped = counts(found)
        took = datetime.timedelta(seconds=round(sum(suite["RunTime"] for suite in reports[name]) / 1e9))
        total = datetime.timedelta(seconds=round(sum(seconds for _, _, seconds in found.values())))
        print(f"| {name} | {passed} | {failed} | {skipped} | {len(found)} | {took} | {total} |")
    everyone = sorted({name for found in runs.values() for name in found})
    # What only one of them ran shows in the counts.
    absent, fine = ("absent", "", 0), ("passed", "absent")
    if any(state not in fine for found in runs.values() for state, _, _ in found.values()):
        print(f"\n| spec | {' | '.join(runs)} | what the suite says |\n|---|{'---|' * len(runs)}---|")
    for name in everyone:
        each = [found.get(name, absent) for found in runs.values()]
        if any(state not in fine for state, _, _ in each):
            reasons = "; ".join(dict.fromkeys(reason.replace("|", "\\|") for _, reason, _ in each if reason))
            print(f"| {name} | {' | '.join(state for state, _, _ in each)} | {reasons} |")
    slowest = lambda name: -max(found.get(name, absent)[2] for found in runs.values())
    print(f"\n| the slowest, in seconds | {' | '.join(runs)} |\n|---|{'---|' * len(runs)}")
    for name in sorted(everyone, key=slowest)[:10]:
        print(f"| {name} | {' | '.join(format(found.get(name, absent)[2], '.0f') for found in runs.values())} |")
    ours = runs.get("wherry")
    return ours is not None and (counts(ours)[1] > 0 or not ours)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
