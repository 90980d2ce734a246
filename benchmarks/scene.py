"How long a procedural training sample takes on one core: 5 views of 320x256, every kind of scene"
import statistics
import time

import torch

from mvs_nb.scene import SCENES, make_views


def main(short=False):
    "Measure, print one line per kind of scene and return the rows"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rows, n = [], 1 if short else 5
        make_views("room", 2, 32, 32, seed=0)                       # first calls are slow
        for kind in SCENES:
            seconds = []
            for seed in range(n):
                start = time.process_time()
                make_views(kind, 5, 256, 320, seed=seed)
                seconds.append(time.process_time()-start)
            median = statistics.median(seconds)
            rows.append(dict(kind=kind, seconds=median, target=1., hit=median < 1))
            print(f"{kind:<12} 5 views of 320x256: {median:5.2f} CPU s (target < 1) {'hit' if median < 1 else 'MISS'}", flush=True)
        return rows
    finally: torch.set_num_threads(threads)


if __name__ == "__main__": main()
