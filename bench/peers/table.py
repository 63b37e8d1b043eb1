"""What run.py says of what it measured: medians over rounds, and the table."""
import math
import sys

FOREIGN = 0.10  # share of the machine used by others above which a round is repeated


def median(values):
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def interval_of_median(values):
    """Widest-needed order statistics around the median, and the chance that they hold it."""
    ordered, n = sorted(values), len(values)
    cumulative, term = 0.0, 0.5**n
    low = 0
    for k in range(n // 2):
        cumulative += term  # P(Binomial(n, 1/2) <= k)
        if 2 * cumulative > 0.05:
            break
        low = k
        term = term * (n - k) / (k + 1)
    outside, term = 0.0, 0.5**n
    for k in range(low + 1):
        outside += term
        term = term * (n - k) / (k + 1)
    return ordered[low], ordered[n - 1 - low], 1 - 2 * outside


def relative_difference(ours, theirs):
    """The largest; infinite where a number is not finite or missing."""
    if len(ours) != len(theirs) or not all(map(math.isfinite, ours + theirs)):
        return math.inf
    return max(abs(a - b) / max(abs(a), 1e-12) for a, b in zip(ours, theirs))


def agreement(entries):
    """The largest difference of digests; "no" where numbers are missing or not finite."""
    differences = [p["digest_difference"] for p in entries]
    return "no" if None in differences else f"{max(differences):.0e}"


def variants_run(entries):
    """"torch 2.15.0 expert,users; ..." shortened to the variants where all peers ran the same."""
    of_peer = {}
    for p in entries:
        of_peer.setdefault(p["name"], []).append(p["variant"])
    lists = {",".join(v) for v in of_peer.values()}
    return lists.pop() if len(lists) == 1 else "; ".join(f"{name.removeprefix('torch ')}: {','.join(v)}" for name, v in of_peer.items())


def show(result):
    mib = 1 << 20
    what, unit = (result["flops"], "GFLOP/s") if result["matrix"] else (result["bytes"], "GB/s")
    rate = f"{what / result['ours_ms'] / 1e6:.1f} {unit}"
    if result["roof"]:
        rate += f", {result['roof']['share']:.0%} of a copy's {result['roof']['copy_gb_per_s']:.1f}"
    print(f"{result['case']}")
    print(f"  {'ours':<29}{result['ours_ms']:>11.4f} ms{'':>29}{result['peak_rss_bytes'] / mib:>9.0f} MiB   {rate}")
    for p in result["peers"]:
        print(f"  {p['peer']:<29}{p['median_ms']:>11.4f} ms   {p['ratio']:>6.2f}x [{p['low']:.2f}, {p['high']:.2f}]"
              f"{'':>4}{p['peak_rss_bytes'] / mib:>9.0f} MiB   agrees to {agreement([p])}")
    foreign = max([f for p in result["peers"] for f in p["foreign"]] + result["foreign"])
    if foreign > FOREIGN:
        print(f"  unquiet: others used up to {foreign:.0%} of the machine in a round kept")
    for note in result["notes"]:
        print(f"  {note}")
    sys.stdout.flush()


def summary(results, coverage):
    print(f"\nratio = median of a round's (peer / ours), [ ] holds it with {coverage:.0%}; fastest: least median of the "
          "tuned variants;\nas installed: 'users' variant, nothing set; memory: peak resident above the start, ours, the fastest peer's, the "
          "least of all;\nof copy: GB/s of ours / of a copy, in turn with it, and the share; agrees: largest difference of a peer's digest")
    print(f"{'case':<42}{'ours ms':>10}  {'fastest peer':<28}{'ratio':>7}  {'interval':<15}{'as installed':>13}  "
          f"{'MiB ours':>8}{'peer':>7}{'least':>7}  {'GB/s of copy':>16}{'agrees':>8}  variants run")
    for r in results:
        if not r["peers"]:
            print(f"{r['case']:<42}{r['ours_ms']:>10.4f}  no peer ran")
            continue
        tuned = [p for p in r["peers"] if p["variant"] != "users"] or r["peers"]
        users = [p["ratio"] for p in r["peers"] if p["variant"] == "users"]
        best = min(tuned, key=lambda p: p["median_ms"])
        least = min(p["peak_rss_bytes"] for p in r["peers"])
        installed = "/".join(f"{x:.1f}x" for x in users)
        roof = r["roof"]
        share = f"{roof['ours_gb_per_s']:.1f}/{roof['copy_gb_per_s']:.1f} {roof['share']:.0%}" if roof else ""
        print(f"{r['case']:<42}{r['ours_ms']:>10.4f}  {best['peer']:<28}{best['ratio']:>6.2f}x  "
              f"[{best['low']:.2f}, {best['high']:.2f}]{'':<3}{installed:>11}  {r['peak_rss_bytes'] / 2**20:>8.0f}"
              f"{best['peak_rss_bytes'] / 2**20:>7.0f}{least / 2**20:>7.0f}  {share:>16}{agreement(r['peers']):>8}  "
              f"{variants_run(r['peers'])}")
