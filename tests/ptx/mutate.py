#!/usr/bin/env python3
"""Plants the bugs of mutations.txt in the PTX, one at a time, and asks whether the kernel tests notice.

usage: tests/ptx/mutate.py BUILD_FOLDER [--every N] [--arch 80|90] [NAME_PART ...]

BUILD_FOLDER holds bin/kernels_tests and lib/libretort_cuda_interpreted.so. A bug counts as found if the tests it names
fail, and as planted only if its edit changed a line. Prints a table. Exits with 1 if a bug survives for which
mutations.txt gives no proof, if one with a proof is found, if an edit changes nothing, or if the tests fail without.
"""
import argparse, os, re, subprocess, sys

HERE = os.path.dirname(os.path.abspath(__file__))
TIMEOUT_S = 900


def read_mutations():
    for line in open(os.path.join(HERE, 'mutations.txt')):
        if line.strip() and not line.startswith('#'):
            fields = [field.strip() for field in line.rstrip('\n').split(' ~ ')]
            yield fields + [''] * (4 - len(fields))


def run(build, arch, edit, tests):
    """(failed, lines edited, what the first fault or mismatch says)"""
    environment = dict(os.environ, RETORT_CUDA_LIBRARY=f'{build}/lib/libretort_cuda_interpreted.so', RETORT_PTX_ARCH=arch, RETORT_PTX_GLOBAL='1',
                       RETORT_NUM_THREADS='1', OMP_WAIT_POLICY='passive')
    if edit:
        environment['RETORT_PTX_EDIT'] = edit
    command = [f'{build}/bin/kernels_tests', '--gtest_filter=' + tests, '--gtest_brief=1', '--gtest_fail_fast',
               '--gtest_throw_on_failure']  # the first mismatch is enough
    try:
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              timeout=TIMEOUT_S)
        out, failed = done.stdout, done.returncode != 0
    except subprocess.TimeoutExpired as e:
        out, failed = (e.stdout or b'').decode(errors='replace'), True
    edited = sum(int(n) for n in re.findall(r'ptx: (\d+) lines edited', out))
    fault = re.search(r'PTX line \d+(?:, [^:]*:[^:]*)*: (.*)|(cannot run .*)|(deadlock.*)', out)
    return failed, edited, next(filter(None, fault.groups()))[:90] if fault else 'wrong numbers'


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument('build')
    parser.add_argument('--every', type=int, default=1)
    parser.add_argument('--arch', default='90')
    parser.add_argument('names', nargs='*')
    args = parser.parse_args()
    chosen = [m for k, m in enumerate(read_mutations())
              if k % args.every == 0 and (not args.names or any(name in m[0] for name in args.names))]
    if not chosen:
        sys.exit('no mutation has such a name')
    problems = 0
    for tests in dict.fromkeys(m[2] for m in chosen) if args.every == 1 else []:  # ctest runs them anyway
        failed, _, why = run(args.build, args.arch, '', tests)
        if failed:
            print(f'without a bug {tests} fails: {why}')
            problems += 1
    for name, edit, tests, proof in chosen:
        failed, edited, why = run(args.build, args.arch, edit, tests)
        # A text that is no PTX any more proves nothing about the tests.
        broken = failed and ('cannot run' in why or 'expected' in why)
        bad = edited == 0 or broken or failed == bool(proof)
        problems += bad
        result = 'NOT PLANTED' if edited == 0 else 'BROKEN' if broken else 'found' if failed else 'survived'
        print(f'{"!!" if bad else "  "} {result:11} {name:46} {edited:5} lines  {proof or why if failed or proof else "SURVIVED"}', flush=True)
    print(f'{len(chosen)} bugs planted, {problems} problems')
    sys.exit(problems > 0)


main()
