"""Runs a peer of the benchmarks, and prints its figures as one line of JSON.

    bench-peers.py hyperqueue TASKS    processes of /bin/true, one worker with two cores
    bench-peers.py dask TASKS          no-op functions, one worker with two threads

Each is used as its own documentation begins with, through its Python client: what people get who install it from PyPI.
"""

import json
import sys
import time


def hyperqueue(tasks):
    from hyperqueue import Job, LocalCluster
    from hyperqueue.cluster import WorkerConfig

    with LocalCluster() as cluster:
        cluster.start_worker(WorkerConfig(cores=2))
        client = cluster.client()

        def run(count):
            job = Job()
            for _ in range(count):
                job.program(["/bin/true"])
            started = time.monotonic()
            client.wait_for_jobs([client.submit(job)])
            return time.monotonic() - started

        run(10)
        return {"rate": tasks / run(tasks)}


def dask(tasks):
    from distributed import Client, LocalCluster, wait

    # In one process: leaner than Dask's usual form, so in its favour.
    with LocalCluster(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None) as cluster:
        with Client(cluster) as client:

            def run(count):
                started = time.monotonic()
                futures = client.map(nothing, range(count), pure=False)
                wait(futures)
                return time.monotonic() - started

            run(10)
            return {"rate": tasks / run(tasks)}


def nothing(_):
    return None


if __name__ == "__main__":
    peer, tasks = {"hyperqueue": hyperqueue, "dask": dask}[sys.argv[1]], int(sys.argv[2])
    print(json.dumps(peer(tasks)))
