"""How long pods take from their creation to Ready, as a client of the API sees it, and the runtime's share.

usage: pod_start.py HOME [ROUNDS] [MANY], in the cluster's network (hack/cluster run). Prints JSON:
  one   seconds from the POST to Ready, of pods made one after the other
  many  the same of MANY pods that are posted at once; `all` until the last of them
  *_runtime  seconds per pod that kubelets waited for RunPodSandbox, CreateContainer and StartContainer
"""
import http.client, json, re, ssl, sys, threading, time

HOME, ROUNDS, MANY = sys.argv[1], int((sys.argv[2:] or [10])[0]), int((sys.argv[3:] or [100])[0])
PODS = "/api/v1/namespaces/default/pods"
CALLS = ("run_podsandbox", "create_container", "start_container")

context = ssl.create_default_context(cafile=f"{HOME}/pki/ca.crt")
context.load_cert_chain(f"{HOME}/pki/admin.crt", f"{HOME}/pki/admin.key")


def connect():
    return http.client.HTTPSConnection("10.80.0.1", 6443, context=context)


def ask(connection, method, path, body=None):
    kind = {"Content-Type": "application/json"}
    connection.request(method, path, json.dumps(body) if body is not None else None, kind)
    answer = connection.getresponse()
    text = answer.read().decode()
    if answer.status >= 300:
        raise SystemExit(f"{method} {path}: {answer.status} {text}")
    return text


def pod(name):
    container = {"name": "c", "image": "busybox", "imagePullPolicy": "IfNotPresent", "command": ["sleep", "3600"]}
    spec = {"containers": [container], "terminationGracePeriodSeconds": 0}
    return {"metadata": {"name": name}, "spec": spec}


class Watch(threading.Thread):
    """When each pod was first seen Ready, and which there are."""

    def __init__(self):
        super().__init__(daemon=True)
        self.ready, self.there, self.changed = {}, set(), threading.Condition()
        listed = json.loads(ask(connect(), "GET", PODS))
        self.since = listed["metadata"]["resourceVersion"]
        self.start()

    def run(self):
        connection = connect()
        connection.request("GET", f"{PODS}?watch=1&resourceVersion={self.since}")
        for line in connection.getresponse():
            event = json.loads(line)
            name = event["object"]["metadata"]["name"]
            conditions = event["object"].get("status", {}).get("conditions", [])
            with self.changed:
                if event["type"] == "DELETED":
                    self.there.discard(name)
                else:
                    self.there.add(name)
                    if any(c["type"] == "Ready" and c["status"] == "True" for c in conditions):
                        self.ready.setdefault(name, time.monotonic())
                self.changed.notify_all()

    def until(self, condition):
        with self.changed:
            if not self.changed.wait_for(condition, 300):
                raise SystemExit("pods did not come or go within five minutes")


def waited(connection):
    """Seconds that the kubelet waited for the runtime so far, and for how many sandboxes."""
    text = ask(connection, "GET", "/api/v1/nodes/node-1/proxy/metrics")
    found = {}
    for kind, call, value in re.findall(
        r'^kubelet_runtime_operations_duration_seconds_(sum|count)\{operation_type="(\w+)"\} (\S+)', text, re.M
    ):
        found[kind, call] = float(value)
    return sum(found.get(("sum", call), 0) for call in CALLS), found.get(("count", CALLS[0]), 0)


def batch(watch, connection, names):
    begun = {}
    before = waited(connection)
    for name in names:
        begun[name] = time.monotonic()
        ask(connection, "POST", PODS, pod(name))
    watch.until(lambda: all(name in watch.ready for name in names))
    after = waited(connection)
    took = [watch.ready[name] - begun[name] for name in names]
    whole = max(watch.ready[name] for name in names) - begun[names[0]]
    for name in names:
        ask(connection, "DELETE", f"{PODS}/{name}", {"gracePeriodSeconds": 0})
    watch.until(lambda: not watch.there.intersection(names))
    return took, whole, (after[0] - before[0]) / max(after[1] - before[1], 1)


watch, connection = Watch(), connect()
batch(watch, connection, ["first"])
time.sleep(2)
singles = [batch(watch, connection, [f"one-{turn}"]) for turn in range(ROUNDS)]
time.sleep(5)
many, whole, share = batch(watch, connection, [f"many-{turn}" for turn in range(MANY)])
print(json.dumps({
    "one": [single[0][0] for single in singles],
    "one_runtime": [single[2] for single in singles],
    "many": many,
    "many_runtime": share,
    "all": whole,
}))
