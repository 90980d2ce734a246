"""Measure the rounds of `mvs_nb train kd-mvs-procedural` on scenes that none of its networks saw.

    mvs_nb train kd-mvs-procedural --precision bf16-mixed --out runs/kd-mvs-procedural
    python benchmarks/kd_mvs.py runs/kd-mvs-procedural [--hard RUN]

Writes data/measured/kd_mvs.json, which the notebook kd_mvs shows. --hard: a student that learned the same labels as plain depths
(`mvs_nb train kd-mvs-student-procedural --loss hard_labels --data.labels runs/kd-mvs-procedural/round1/labels ...`)."""
import argparse, json, sys
from pathlib import Path

KEYS = ("abs", "abs_rel", "within_0.05", "delta_1", "within_2_steps", "epe", "images")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="folder of the rounds")
    parser.add_argument("--hard", default=None, help="folder of a student trained on hard labels")
    parser.add_argument("--scenes", type=int, default=42, help="held-out scenes")
    parser.add_argument("--cache", default=None, help="folder of rendered scenes")
    a = parser.parse_args()
    from mvs_nb.files import atomic_path, data_folder
    from mvs_nb.training.experiments import evaluate, get_experiment
    from mvs_nb.training.kd_mvs import format_steps
    run = Path(a.run)
    teacher, student, supervised = (get_experiment(n, **{"data.valid_scenes": a.scenes} | ({"data.cache": a.cache} if a.cache else {})) for n in ("kd-mvs-teacher-procedural", "kd-mvs-student-procedural", "casmvsnet-procedural"))
    rows = {"untrained": (teacher, None), "teacher": (teacher, run/"teacher"/"best.pt")}
    students = sorted(run.glob("round*/student"))
    for i, folder in enumerate(students, 1): rows[f"student {i}" if len(students) > 1 else "student"] = (student, folder/"best.pt")
    if a.hard: rows["student of hard labels"] = (student, Path(a.hard)/"best.pt")
    weights = data_folder()/"weights"/"casmvsnet.safetensors"
    if weights.is_file(): rows["CasMVSNet, supervised"] = (supervised, weights)
    table = {}
    for name, (experiment, checkpoint) in rows.items():
        m = evaluate(experiment, checkpoint, "test")
        table[name] = {k: round(m[k], 4) for k in KEYS} | dict(blind="supervised" not in name)
        print(name, table[name], flush=True)
    steps = json.loads((run/"steps.json").read_text())
    labels = "; ".join(" ".join(format_steps([s]).split()) for s in steps if "kept" in s)
    with atomic_path(data_folder()/"measured"/"kd_mvs.json") as temporary: temporary.write_text(json.dumps(dict(networks=table, labels=labels), indent=1)+"\n")


if __name__ == "__main__": sys.exit(main())
