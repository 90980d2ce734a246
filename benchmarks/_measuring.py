"What several benchmarks need: memory of this process, functions in processes of their own, reports"
import argparse, json, platform, subprocess, sys
from datetime import date
import torch
from mvs_nb.files import atomic_path, data_folder


def status(field):
    "A line of /proc/self/status in bytes (Linux)"
    with open("/proc/self/status") as f: return next(int(line.split()[1])*1024 for line in f if line.startswith(field))


def highest(function, *args, device="cpu"):
    "The most memory that one call takes above what is held, in bytes (on a CPU: Linux); call it in a fresh process, because allocators keep pages"
    if device == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        function(*args)
        return torch.cuda.max_memory_allocated() - before
    before = status("VmRSS")
    with open("/proc/self/clear_refs", "w") as f: f.write("5") # forget the highest mark
    function(*args)
    return status("VmHWM") - before


def apart(script, arguments, *options):
    "What `python script --peak arguments` prints, as JSON, from a process of its own"
    done = subprocess.run([sys.executable, script, *options, "--peak", json.dumps(arguments)], check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def write_report(name, rows, **facts):
    "Rows and where they were measured, as data/measured/NAME.json"
    facts = dict(date=str(date.today()), machine=platform.machine(), system=platform.system(), threads=torch.get_num_threads(), torch=torch.__version__) | facts
    with atomic_path(data_folder()/"measured"/f"{name}.json") as temporary: temporary.write_text(json.dumps(dict(**facts, rows=rows), indent=1) + "\n")


def agree(rows, text):
    "End with an error unless every row keeps to its target; else print what was found, and return the rows"
    if any(not r["value"] <= r["target"] for r in rows): raise SystemExit(f"not the same: {rows}")
    print(text)
    return rows


def command_line(text, main, peak):
    "The command line of a benchmark: all of it, --short, or for `apart` its function `peak`"
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="small inputs: correctness only")
    parser.add_argument("--peak", type=json.loads, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.peak: print(json.dumps(peak(*given.peak)))
    else: main(given.short)
