"""Checks the chart with what scripts/helm-tools.sh fetched: run it as `make helm`.

Helm 3 and helm 4 must lint it without a warning, render the same from each set of values in ci/, and refuse each set in
ci/refused/ with the words in its first line. Every object must follow the schemas of the oldest Kubernetes that the
chart admits and of the newest one known, with no field that they do not have, and select only pods that there are.
"""

import concurrent.futures
import os
import pathlib
import re
import shutil
import subprocess
import sys

try:
    import kubernetes_validate
    import yaml
except ImportError:
    sys.exit("helm: no schemas: run scripts/helm-tools.sh, and this with its Python (`make helm` does both)")

CHART = pathlib.Path(__file__).resolve().parent.parent / "helm" / "muster"
TOOLS = pathlib.Path(os.environ.get("MUSTER_TOOLS") or pathlib.Path.home() / ".cache/muster/tools") / "bin"


def helm(program, *arguments):
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False)


def found(name):
    own = TOOLS / name
    return str(own) if own.exists() else shutil.which(name)


def linted(program, values):
    answer = helm(program, "lint", "--strict", "--quiet", str(CHART), "--values", str(values))
    return [] if answer.returncode == 0 else [f"{program} lint with {values.name}: {answer.stdout}{answer.stderr}"]


def rendered(program, values):
    return helm(program, "template", "check", str(CHART), "--namespace", "jobs", "--values", str(values))


def refused(program, values):
    wanted = values.read_text().splitlines()[0].removeprefix("# refused: ")
    answer = rendered(program, values)
    if answer.returncode == 0:
        return [f"{program} takes {values.name}, which is wrong: {wanted}"]
    return [] if wanted in answer.stderr else [f"{program} on {values.name} says nothing of '{wanted}': {answer.stderr}"]


def labels_of_pods(objects):
    for thing in objects:
        template = thing["spec"].get("template") if "spec" in thing else None
        if template:
            yield template["metadata"]["labels"], template["spec"]


def problems_of(objects, versions):
    pods = list(labels_of_pods(objects))
    for thing in objects:
        name = f"{thing['kind']} {thing['metadata']['name']}"
        for version in versions:
            try:
                kubernetes_validate.validate(thing, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                yield f"{name}, Kubernetes {version}: {'.'.join(str(part) for part in error.path)}: {error.message}"
        spec = thing.get("spec", {})
        selector = spec.get("selector") or spec.get("podSelector")
        if not selector:
            continue
        wanted = selector.get("matchLabels", selector).items()
        selected = [pod for labels, pod in pods if wanted <= labels.items()]
        if len(selected) != 1:
            yield f"{name} selects {len(selected)} kinds of pods: {dict(wanted)}"
        elif thing["kind"] == "Service":
            ports = {port["name"] for container in selected[0]["containers"] for port in container["ports"]}
            for port in spec["ports"]:
                if port["targetPort"] not in ports:
                    yield f"{name} leads to a port {port['targetPort']} that its pods do not have"


def main():
    programs = [found(name) for name in ("helm3", "helm4")]
    if None in programs:
        sys.exit("helm: helm3 and helm4 are needed: run scripts/helm-tools.sh, or install them under these names")
    oldest = re.search(r"(\d+\.\d+)", yaml.safe_load((CHART / "Chart.yaml").read_text())["kubeVersion"]).group(1)
    newest = ".".join(kubernetes_validate.__version__.split(".")[:2])
    good = sorted((CHART / "ci").glob("*-values.yaml"))
    bad = sorted((CHART / "ci" / "refused").glob("*.yaml"))
    assert len(good) > 1 and len(bad) > 1, "the sets of values are gone"

    problems = []
    with concurrent.futures.ThreadPoolExecutor() as pool:
        waiting = [pool.submit(linted, program, values) for program in programs for values in good]
        waiting += [pool.submit(refused, program, values) for program in programs for values in bad]
        answers = {values: [pool.submit(rendered, program, values) for program in programs] for values in good}
        for future in waiting:
            problems += future.result()
    checked = 0
    for values, (three, four) in ((values, [a.result() for a in pair]) for values, pair in answers.items()):
        if three.returncode or four.returncode:
            problems.append(f"{values.name} is not rendered: {three.stderr}{four.stderr}")
            continue
        if three.stdout != four.stdout:
            problems.append(f"helm 3 and helm 4 render different things from {values.name}")
        objects = [thing for thing in yaml.safe_load_all(four.stdout) if thing]
        checked += len(objects)
        problems += [f"{values.name}: {problem}" for problem in problems_of(objects, [oldest, newest])]
    for problem in problems:
        print(f"helm: {problem}", file=sys.stderr)
    if problems:
        sys.exit(1)
    print(f"helm: {len(good)} sets of values, {checked} objects, Kubernetes {oldest} and {newest}; {len(bad)} refused")


if __name__ == "__main__":
    main()
