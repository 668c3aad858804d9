"""Reads the JSON reports of hack/critest in a folder: counts for each run, every spec that did not pass with
the reason that the suite gives, and where two runtimes differ. Exits with 1 if a spec failed on Wherry."""

import json
import pathlib
import sys


def specs(path):
    """Name -> (state, reason) of every spec of a run."""
    found = {}
    for suite in json.loads(path.read_text()):
        for spec in suite["SpecReports"] or []:
            if spec["LeafNodeType"] != "It":
                continue
            name = " ".join([*(spec["ContainerHierarchyTexts"] or []), spec["LeafNodeText"]])
            reason = (spec.get("Failure") or {}).get("Message", "").strip().split("\n")[0]
            found[name.removeprefix("[k8s.io] ")] = (spec["State"], reason)
    return found


def main(folder):
    runs = {path.stem: specs(path) for path in sorted(pathlib.Path(folder).glob("*-*.json"))}
    broken = False
    for run, found in runs.items():
        count = lambda *states: sum(state in states for state, _ in found.values())
        skipped = count("skipped", "pending")
        failed = len(found) - count("passed") - skipped
        print(f"\n{run}: {count('passed')} passed, {failed} failed, {skipped} skipped of {len(found)}")
        broken |= run.startswith("wherry-") and failed > 0
        for name, (state, reason) in sorted(found.items(), key=lambda item: (item[1][0], item[0])):
            if state != "passed":
                print(f"  {state}: {name}: {reason or 'no reason given'}")
    ours = [found for run, found in runs.items() if run.startswith("wherry-")]
    peers = [found for run, found in runs.items() if not run.startswith("wherry-")]
    if ours and peers:
        print("\n| spec | Wherry | containerd |\n|---|---|---|")
        states = lambda all_runs, name: ", ".join(sorted({run.get(name, ("absent",))[0] for run in all_runs}))
        for name in sorted({name for found in ours + peers for name in found}):
            own, other = states(ours, name), states(peers, name)
            if own != other:
                print(f"| {name} | {own} | {other} |")
    return broken


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
