#!/usr/bin/env python3
"""Mutation check: plants one bug at a time in a kernel and asks whether its probe program notices.

usage: tests/mutation/mutate.py OP [--every N] [--scratch DIR] [--jobs N] [--all-builds] [number ...]

tests/mutation/OP.py holds
    PROBE    the program, built with the emulator and run: it must exit with 0 exactly if all is well
    MUTANTS  tuples (name, file below kernels/, text, replacement[, builds to try, in order])
A mutant is killed by the first build whose probe fails, reports a race or stops (--all-builds shows
what every build says). Prints a table; exits with 1 if a mutant survives or the sound kernel fails.
The lists are grouped by kind of bug, so that --every 6, which ctest asks for, meets most kinds; the
sound kernel then runs in the plain build alone.
"""
import argparse, concurrent.futures, importlib.util, os, shutil, subprocess, sys, tempfile, threading, time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
FLAGS = '-std=c++20 -O1 -mavx2 -mfma -w -pthread'.split()
BUILDS = {
    'plain': [],
    'asan': ['-fsanitize=address,undefined', '-fno-sanitize-recover=undefined'],
    'tsan': ['-fsanitize=thread'],
}
COMPILER = os.environ.get('CXX', 'g++')
TIMEOUT_S = 300        # after which a mutant hangs; the sound kernel may be as slow as the machine is
SOUND_TIMEOUT_S = 3600


def build_emulator(scratch, build):
    # The scheduler is never built with TSan, what instructions compute with no sanitizer: their files say why.
    targets = []
    for name, flags in (('emu', [] if build == 'tsan' else BUILDS[build]), ('instructions', [])):
        targets.append(f'{scratch}/{name}_{build}.o')
        subprocess.run([COMPILER, *FLAGS, '-O2', *flags, '-I' + ROOT, '-c', f'{ROOT}/kernels/simt/{name}.cpp', '-o', targets[-1]],
                       check=True)
    return targets


def verdict(code, out):
    """What the probe said, in a word; '-' if it saw nothing."""
    if 'data race' in out:
        return 'race'
    if 'runtime error' in out:
        return 'UBSan'
    if 'AddressSanitizer' in out:
        return 'ASan'
    if code == 0:
        return '-'
    if 'what():' in out:
        return 'fault: ' + out.split('what():')[1].split(':')[0].strip()
    for line in out.splitlines():
        if line.startswith('FAIL'):
            return line.removeprefix('FAIL').strip().split(':')[0]
    return 'hangs' if code == 'timeout' else f'exit {code}'


class Emulators:
    """The emulator's object files, built when first asked for."""

    def __init__(self, scratch):
        self.scratch, self.lock, self.built = scratch, threading.Lock(), {}

    def get(self, build):
        with self.lock:
            if build not in self.built:
                self.built[build] = build_emulator(self.scratch, build)
            return self.built[build]


def try_build(probe, folder, build, emulators, timeout):
    program = f'{folder}/{build}'
    subprocess.run([COMPILER, *FLAGS, *BUILDS[build], '-I' + folder, '-I' + ROOT, f'{ROOT}/{probe}',
                    *emulators.get(build), '-o', program], check=True)
    environment = {**os.environ, 'TSAN_OPTIONS': 'atexit_sleep_ms=0:halt_on_error=1', 'ASAN_OPTIONS': 'detect_leaks=0'}
    try:
        done = subprocess.run([program], capture_output=True, text=True, errors='replace', env=environment,
                              timeout=timeout)
        return verdict(done.returncode, done.stdout + done.stderr)
    except subprocess.TimeoutExpired:
        return 'hangs'


def check(number, mutant, probe, scratch, emulators, all_builds):
    name, file, text, replacement, *rest = mutant
    builds = rest[0] if rest else ('plain', 'tsan', 'asan')
    folder = f'{scratch}/m{number}'
    if file:
        top = file.split('/')[0]
        shutil.copytree(f'{ROOT}/kernels/{top}', f'{folder}/kernels/{top}')
        path = f'{folder}/kernels/{file}'
        with open(path) as f:
            source = f.read()
        if source.count(text) != 1:
            return number, name, {'list': f'the text occurs {source.count(text)} times in {file}'}, False
        with open(path, 'w') as f:
            f.write(source.replace(text, replacement))
    else:
        os.makedirs(folder)
    seen = {}
    for build in builds:
        seen[build] = try_build(probe, folder, build, emulators, TIMEOUT_S if file else SOUND_TIMEOUT_S)
        if seen[build] != '-' and not all_builds:
            break
    shutil.rmtree(folder)
    return number, name, seen, any(v != '-' for v in seen.values())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('op')
    parser.add_argument('numbers', nargs='*', type=int)
    parser.add_argument('--every', type=int, default=1)
    parser.add_argument('--scratch')
    parser.add_argument('--jobs', type=int, default=2)
    parser.add_argument('--all-builds', action='store_true')
    args = parser.parse_args()
    spec = importlib.util.spec_from_file_location(args.op, f'{HERE}/{args.op}.py')
    op = importlib.util.module_from_spec(spec)
    sys.dont_write_bytecode = True
    spec.loader.exec_module(op)

    begin = time.time()
    scratch = tempfile.mkdtemp(prefix='mutate_', dir=args.scratch)
    emulators = Emulators(scratch)
    sound = ('sound', '', '', '', tuple(BUILDS) if args.every == 1 else ('plain',))
    mutants = [(i, m) for i, m in enumerate(op.MUTANTS)
               if (i in args.numbers if args.numbers else i % args.every == 0)]
    survivors, broken = 0, False
    try:
        with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
            futures = [pool.submit(check, 'sound', sound, op.PROBE, scratch, emulators, True)]
            futures += [pool.submit(check, i, m, op.PROBE, scratch, emulators, args.all_builds) for i, m in mutants]
            for future in futures:
                number, name, seen, killed = future.result()
                if number == 'sound':
                    broken = killed
                else:
                    survivors += not killed
                row = ' | '.join(f'{build}: {what}' for build, what in seen.items())
                print(f'{number!s:>5} {name:46s} {row}', flush=True)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    print(f'{args.op}: {len(mutants)} mutants, {survivors} survivor(s), {time.time() - begin:.0f} s')
    if broken:
        print('the sound kernel fails its probe: the verdicts mean nothing')
    return 1 if survivors or broken else 0


if __name__ == '__main__':
    sys.exit(main())
