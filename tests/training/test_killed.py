"""A training that is killed at any moment, and resumed, ends with the weights that it would have had, bit for bit.

Each attempt is a process of its own, forked from one that has imported everything and computed nothing.
"""

import json
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

SCRIPT = """
    import json, os, random, shutil, signal, sys, time
    from pathlib import Path

    import imgclf
    from imgclf import runs
    from imgclf.settings import TrainConfig
    from imgclf.training import callbacks, train

    data, place, kills, break_it = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    config = TrainConfig(
        backbone="small-cnn", image_size=32, epochs=12, batch_size=8, dropout=0.5, ema=0.9, augment="standard",
        export="none", deterministic=True,
    )
    if break_it == "seed":  # leave out of what is restored what Keras's own files leave out, too
        restore = callbacks.State.restore

        def forgetful(state, path):
            seeds = [v for v in state.logits.variables if "seed" in v.path]
            states = [v.numpy() for v in seeds]
            restore(state, path)
            for variable, state in zip(seeds, states):
                variable.assign(state)

        callbacks.State.restore = forgetful

    def stamp(folder):
        try:
            return (folder / "checkpoint").stat().st_mtime_ns
        except OSError:
            return None

    def attempt(folder, kill_after_s, epoch=False):
        '''Train or go on; killed after a time, or None for not at all. Returns whether it ended by itself.

        epoch: count the time from the end of its first epoch on.
        '''
        before = stamp(folder)
        child = os.fork()
        if not child:
            try:
                if (folder / "config.json").exists():
                    train.resume(runs.find(folder))
                else:
                    train.train(imgclf.read(data), config, output=folder)
            except BaseException as error:
                print(repr(error), file=sys.stderr, flush=True)
                os._exit(1)
            os._exit(0)
        end = None if kill_after_s is None or epoch else time.monotonic() + kill_after_s
        while True:
            if epoch and stamp(folder) not in (before, None):
                end, epoch = time.monotonic() + kill_after_s, False
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                if status and os.WIFEXITED(status):
                    sys.exit("the training failed")
                return not status
            if end is not None and time.monotonic() > end:
                os.kill(child, signal.SIGKILL)
                end = None
            time.sleep(0.005)

    def weights(folder):
        import hashlib, io, zipfile
        import h5py
        digest = hashlib.sha256()
        with zipfile.ZipFile(folder / "model.keras") as file:
            with h5py.File(io.BytesIO(file.read("model.weights.h5"))) as stored:
                arrays = []
                stored.visititems(lambda name, item: arrays.append(item[()]) if hasattr(item, "dtype") else None)
                for array in arrays:
                    digest.update(array.tobytes())
        return digest.hexdigest()

    whole, killed = place / "whole", place / "killed"
    started = time.monotonic()
    attempt(whole, None)
    took = time.monotonic() - started
    rng = random.Random(0)
    count, resumed, ends = 0, 0, set()
    while count < kills or not ends:
        if (killed / "artifact.json").exists():  # went through: compared, and once more from the beginning
            ends.add(weights(killed))
            shutil.rmtree(killed)
        if killed.exists() and not (killed / "config.json").exists():  # killed before there was a run
            shutil.rmtree(killed)
        resumed += (killed / "checkpoint").exists()
        if count == kills:
            through = attempt(killed, None)
        elif count % 2:
            through = attempt(killed, rng.uniform(0.1, 0.95) * took)
        else:  # the first epoch takes most of the time, since it compiles, and later ones are to be hit, too
            through = attempt(killed, rng.uniform(0, 0.3), epoch=True)
        count += not through
        if through and count >= kills:
            ends.add(weights(killed))
    print(json.dumps({"kills": count, "resumed": resumed, "equal": ends == {weights(whole)}}))
"""


def run(folder: Path, place: Path, kills: int, break_it: str = "") -> dict[str, object]:
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT), str(folder), str(place), str(kills), break_it]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has neither fork nor SIGKILL")
def test_killed_at_random_moments_training_ends_with_the_same_bits(image_folder: Callable[..., Path], tmp_path: Path):
    found = run(image_folder(count=24), tmp_path, kills=20)
    assert found["equal"] and found["kills"] == 20
    assert int(str(found["resumed"])) >= 5  # every other moment is after the first epoch


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has neither fork nor SIGKILL")
def test_without_the_seed_state_the_bits_differ(image_folder: Callable[..., Path], tmp_path: Path):
    found = run(image_folder(count=24), tmp_path, kills=1, break_it="seed")
    assert int(str(found["resumed"])) >= 1 and not found["equal"]
