"""Whether imported rules say what Prometheus says: both judge the same samples.

    target/python/bin/python benches/import_peers.py RULES... [--tidewatch PROGRAM] [--rounds 3] [--seed 1] [--verbose]

Any Python that has PyYAML does; .ci/install makes this one. RULES are rule files of Prometheus, PrometheusRule objects, or folders of
them; each argument is a line of the result. Rules of one folder may name each other's recording rules. promtool must be there.

Every alerting rule becomes a case. Its selectors are read off its expression, and each gets series with random values, random and the
same for the same seed: with the labels that the rule names, with values near the numbers that it names, with some that its matchers
leave out; with gaps, resets, and ends that are told of by a stale marker. promtool has the rule as it is, the program what `tidewatch
rules import` makes of it; after each minute the alerts must be the same, with the same labels. Changed before both get it:

  names        metrics get the case's number in front, so that one run has many cases; the alert is called by it too
  for          and keep_firing_for are cut to ten minutes
  interval     of a group is left out: promtool evaluates every group each minute
  annotations  are left out; a test of the program compares them (pipeline/run/tests/program/import.rs)

A sample is taken each 17 seconds, and none exactly at a minute, where a range takes it here and not there (docs/promql.md).
"""

import argparse
import collections
import json
import random
import re
import re._constants as kinds
import re._parser as regexes
import subprocess
import sys
import tempfile
from datetime import datetime
from pathlib import Path

import yaml

# Where the clock of promtool stands.
START = 0
STEP = 17
# Each rule whose plan is run looks at the rows of all of them.
CASES_AT_ONCE = 8
LONGEST_HOLD = 10 * 60
UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800, "y": 31_536_000}
AGGREGATIONS = {"sum", "min", "max", "avg", "group", "stddev", "stdvar", "count", "count_values", "bottomk", "topk",
                "quantile"}
LISTS = {"by", "without", "on", "ignoring", "group_left", "group_right"}
WORDS = AGGREGATIONS | LISTS | {"and", "or", "unless", "bool", "offset", "inf", "nan", "atan2"}
COUNTING = {"rate", "irate", "increase", "resets"}
TOKEN = re.compile(r"""
    (?P<comment>\#[^\n]*)|(?P<text>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|`[^`]*`)|(?P<range>\[[^\]]*\])
    |(?P<number>(?:\d[\d.]*(?:[eE][+-]?\d+)?(?:ms|[smhdwy])?)+|\.\d+)|(?P<name>[a-zA-Z_:][\w:]*)
    |(?P<sign>=~|!~|!=|==|<=|>=|[^\s])|(?P<space>\s+)""", re.VERBOSE)


def seconds(text):
    """Of a duration, 1h30m."""
    return sum(float(count) * UNITS[unit] for count, unit in re.findall(r"([\d.]+)(ms|[smhdwy])", str(text)))


def unquoted(text):
    escaped = {"n": "\n", "t": "\t"}
    inner = text[1:-1]
    return inner if text[0] == "`" else re.sub(r"\\(.)", lambda found: escaped.get(found[1], found[1]), inner)


class Expression:
    """What an expression names: selectors, labels, numbers, and how far it looks back."""

    def __init__(self, text):
        self.selectors, self.labels, self.numbers, self.reach, self.pieces = [], set(), [], 300, []
        self.clock = "time()" in re.sub(r"\s", "", text)
        tokens = [(found.lastgroup, found[0]) for found in TOKEN.finditer(text)]
        tokens = [(kind, word) for kind, word in tokens if kind not in ("comment", "space")]
        calls, at = [], 0
        while at < len(tokens):
            kind, word = tokens[at]
            after = tokens[at + 1][1] if at + 1 < len(tokens) else ""
            if kind == "name" and word.lower() in LISTS and after == "(":
                end = next(place for place in range(at, len(tokens)) if tokens[place][1] == ")")
                self.labels |= {name for kind, name in tokens[at:end] if kind == "name"} - {word}
                self.pieces += [piece for _, piece in tokens[at:end + 1]]
                at = end + 1
                continue
            if kind == "name" and word.lower() not in WORDS and after != "(" or word == "{":
                name = "" if word == "{" else word
                at += 0 if word == "{" else 1
                matchers = []
                if at < len(tokens) and tokens[at][1] == "{":
                    end = next(place for place in range(at, len(tokens)) if tokens[place][1] == "}")
                    inner = tokens[at + 1:end]
                    for place, (kind, label) in enumerate(inner):
                        if kind == "name" and place + 2 < len(inner) and inner[place + 2][0] == "text":
                            matchers.append((label, inner[place + 1][1], unquoted(inner[place + 2][1])))
                    at = end + 1
                self.selectors.append((name, matchers, any(call in COUNTING for call in calls[-1:])))
                self.pieces.append((name, matchers))
                continue
            if word == "(":
                calls.append(tokens[at - 1][1] if at and tokens[at - 1][0] == "name" else calls[-1] if calls else "")
            elif word == ")" and calls:
                calls.pop()
            elif kind == "range":
                self.reach = max(self.reach, sum(seconds(part) for part in word[1:-1].split(":")[:1]))
            elif kind == "number" and re.fullmatch(r"[\d.]+(?:[eE][+-]?\d+)?", word):
                self.numbers.append(float(word))
            elif word == "offset":
                self.reach += seconds(after)
            self.pieces.append(word)
            at += 1

    def renamed(self, rename):
        """Its text with other names for metrics."""
        def selector(name, matchers):
            inner = ", ".join(f"{label}{operator}{json.dumps(value)}" for label, operator, value in matchers)
            return rename(name) + (f"{{{inner}}}" if inner or not name else "")
        text = " ".join(piece if isinstance(piece, str) else selector(*piece) for piece in self.pieces)
        return re.sub(r" (\[)", r"\1", text)


def added(values, more):
    """Two counters as one, where both have a number."""
    both = zip(values, more)
    return [one if not isinstance(one, float) or not isinstance(other, float) else one + other for one, other in both]


def matching(regex, chance):
    """A text that an anchored regular expression matches; None where none was found."""
    def one(parts):
        out = ""
        for kind, value in parts:
            if kind is kinds.LITERAL:
                out += chr(value)
            elif kind is kinds.NOT_LITERAL:
                out += "x" if value != ord("x") else "y"
            elif kind is kinds.ANY:
                out += chance.choice("abx1")
            elif kind is kinds.BRANCH:
                out += one(chance.choice(value[1]))
            elif kind is kinds.SUBPATTERN:
                out += one(value[3])
            elif kind in (kinds.MAX_REPEAT, kinds.MIN_REPEAT):
                least, most, inner = value
                out += "".join(one(inner) for _ in range(chance.randint(least, min(most, least + 2))))
            elif kind is kinds.IN:
                letters = [letter for letter in "a1x-/. Zeu50" if re.fullmatch(set_of(value), letter)]
                out += chance.choice(letters) if letters else ""
        return out

    def set_of(items):
        text = "".join(
            "^" if kind is kinds.NEGATE else re.escape(chr(value)) if kind is kinds.LITERAL
            else f"{re.escape(chr(value[0]))}-{re.escape(chr(value[1]))}" if kind is kinds.RANGE
            else {kinds.CATEGORY_DIGIT: r"\d", kinds.CATEGORY_WORD: r"\w", kinds.CATEGORY_SPACE: r"\s",
                  kinds.CATEGORY_NOT_DIGIT: r"\D", kinds.CATEGORY_NOT_WORD: r"\W", kinds.CATEGORY_NOT_SPACE: r"\S"}[value]
            for kind, value in items)
        return f"[{text}]"

    try:
        parsed = regexes.parse(regex)
        for _ in range(20):
            found = one(parsed)
            if re.fullmatch(regex, found):
                return found
    except (re.error, KeyError, IndexError):
        pass
    return None


def holds(matcher, value):
    _, operator, wanted = matcher
    try:
        found = value == wanted if operator in ("=", "!=") else re.fullmatch(wanted, value) is not None
    except re.error:
        return False
    return found == (operator in ("=", "=~"))


class Case:
    """One alerting rule, with the recording rules that it needs."""

    def __init__(self, number, source, rule, group, records):
        self.name, self.source, self.rule = f"c{number}", source, rule
        self.expr = Expression(str(rule["expr"]))
        labels = (group.get("labels") or {}) | (rule.get("labels") or {})
        self.labels = {name: str(value) for name, value in labels.items()}
        self.records, self.reach, self.clock = [], self.expr.reach, self.expr.clock
        known = collections.defaultdict(list)
        for record in records:
            known[record["record"]].append(record)
        waiting, self.own = [self.expr], []
        while waiting:
            for name, matchers, counts in waiting.pop().selectors:
                if name not in known:
                    self.own.append((name, matchers, counts))
                    continue
                for record in known[name]:
                    if record not in self.records:
                        self.records.append(record)
                        waiting.append(Expression(str(record["expr"])))
        self.others = [Expression(str(record["expr"])) for record in self.records]
        self.reach = max([self.expr.reach] + [other.reach for other in self.others])
        self.hold, self.keep = (min(seconds(rule.get(key) or 0), LONGEST_HOLD) for key in ("for", "keep_firing_for"))
        self.minutes = int(self.reach + self.hold + self.keep) // 60 + 15
        self.fired, self.differs, self.fault, self.refused, self.compared, self.partners = 0, [], None, None, 0, ""

    def rename(self, name):
        return name if name in ("", "ALERTS", "ALERTS_FOR_STATE") else f"{self.name}_{name}"

    def group(self):
        """As a group of its own, in the order in which one needs the other."""
        # Those found last are named by those found first.
        rules = []
        for record, other in reversed(list(zip(self.records, self.others))):
            rules.append({"record": self.rename(record["record"]), "expr": other.renamed(self.rename)})
            rules[-1] |= {"labels": record["labels"]} if record.get("labels") else {}
        alert = {"alert": self.name, "expr": self.expr.renamed(self.rename)}
        alert |= {key: f"{int(value)}s" for key, value in (("for", self.hold), ("keep_firing_for", self.keep)) if value}
        return {"name": self.name, "rules": rules + [alert | ({"labels": self.labels} if self.labels else {})]}

    def series(self, chance, round_number):
        """Metrics, labels, and what they have at each of the times: a number, None, or 'stale'."""
        expressions = [self.expr, *self.others]
        named = set().union(*(expression.labels for expression in expressions))
        named |= set(re.findall(r"\$labels\.(\w+)", json.dumps(self.rule.get("annotations") or {})))
        named -= {"le", "__name__"}
        # In the first round no two machines have a label's text in common: whatever meets, meets one.
        among = {label: 4 if round_number == 0 or label == "instance" else chance.randint(1, 4)
                 for label in sorted(named | {"job", "instance"})}
        lacking = {(label, machine) for label in sorted(named - {"instance"}) for machine in range(4)
                   if round_number and chance.random() < 0.1}
        numbers = [number for expression in expressions for number in expression.numbers] or [1.0]
        count = self.minutes * 60 // STEP
        memory, found = {}, {}
        metrics = collections.defaultdict(list)
        for name, matchers, counts in self.own:
            metrics[name].append((matchers, counts))
        for name, selectors in metrics.items():
            counts = any(counts for _, counts in selectors)
            counts = counts or re.search(r"_(total|count|sum|bucket)$", name) is not None
            # The last kind has only labels to tell.
            near, kind = chance.choice(numbers), chance.randrange(5)
            kind = 5 if re.search("_(info|name|labels)$", name) else kind
            for machine in range(4):
                base = {label: f"{label}{machine % of}" for label, of in among.items() if (label, machine) not in lacking}
                for matchers, _ in selectors:
                    for sort in range(2 if round_number else 1):
                        labels = self.matched(chance, base, matchers, memory, machine if round_number > 1 else 0)
                        if sort == 1 and matchers:
                            # One that a matcher leaves out, mostly.
                            labels[chance.choice(matchers)[0]] = chance.choice(["", "other", "1"])
                        labels = {label: value for label, value in labels.items() if value and label != "__name__"}
                        bounds = ["0.1", "0.5", "1", "10", "+Inf"] if name.endswith("_bucket") else [labels.get("le")]
                        values = None
                        for bound in bounds:
                            of_bound = labels | ({"le": bound} if bound else {})
                            more = self.values(chance, count, counts, near, kind)
                            values = added(values, more) if values and counts else more
                            found.setdefault((self.rename(name), tuple(sorted(of_bound.items()))), values)
        return found

    @staticmethod
    def matched(chance, base, matchers, memory, machine):
        """Labels that matchers take; the same text for the same matcher of a machine."""
        labels = dict(base)
        for matcher in matchers:
            label, operator, value = matcher
            if label in labels and label not in base and holds(matcher, labels[label]):
                continue
            known = (label, operator, value, machine)
            if known not in memory:
                of_regex = matching(value, chance) if operator == "=~" else None
                wanted = value if operator == "=" else of_regex if operator == "=~" else f"{label}x"
                memory[known] = wanted if wanted is not None and holds(matcher, wanted) else value
            labels[label] = memory[known]
        return labels

    def values(self, chance, count, counts, near, kind):
        """What one series has."""
        def level():
            if self.clock and kind < 3:
                return START + chance.uniform(-1.5, 1.1) * max(near, 60) * chance.choice([1, 1, 60])
            return float({
                0: lambda: chance.randint(0, 1),
                1: lambda: near * chance.choice([0, 0.5, 0.9, 1, 1, 1.1, 1.5, 3]),
                2: lambda: abs(near + chance.choice([-1, 0, 1])),
                3: lambda: chance.randint(0, 10),
                4: lambda: near * chance.choice([0, 1, 2]) + chance.randint(0, 100),
                5: lambda: 1}[kind]())
        values, value, left, pace = [], level(), 0, 0.0
        total = float(chance.choice([0, 0, 3, 1000]))
        for _ in range(count):
            if left == 0:
                left = chance.choice([3, 10, 30, 80])
                value = level()
                pace = chance.choice([0, 0, 1, max(near, 1) / 10, near * STEP * chance.choice([0.5, 1.5, 3])])
            left -= 1
            if counts:
                # Steps of odd sizes: two shares that are equal to the last digit are rounding's to tell apart.
                step = chance.choice([0, 1, 1]) * round(pace * chance.uniform(0.8, 1.2))
                total = 0.0 if chance.random() < 0.01 else float(total + step)
            values.append(total if counts else value)
        for _ in range(chance.choice([0, 0, 1, 2])):
            first, lasts = chance.randrange(count), chance.choice([1, 2, 5, 25, count])
            end = min(first + lasts, count)
            values[first:end] = [None] * (end - first)
            if chance.random() < 0.6:
                values[first] = "stale"
        # None at a minute, and so none at the start.
        return [None if index * STEP % 60 == 0 else value for index, value in enumerate(values)]


def documents(file):
    """The groups of a file."""
    try:
        for document in yaml.safe_load_all(file.read_text()):
            if isinstance(document, dict):
                root = document.get("spec") if "groups" not in document else document
                yield from (root or {}).get("groups") or [] if isinstance(root, dict) else []
    except (yaml.YAMLError, UnicodeDecodeError):
        return


def cases_of(source, first):
    source = Path(source)
    files = sorted(file for end in ("yml", "yaml") for file in source.rglob(f"*.{end}"))
    files = [source] if source.is_file() else files
    cases = []
    for folder in sorted({file.parent for file in files}):
        groups = [(file, group) for file in files if file.parent == folder for group in documents(file)]
        rules = [(file, group, rule) for file, group in groups if isinstance(group, dict)
                 for rule in group.get("rules") or [] if isinstance(rule, dict) and "expr" in rule]
        records = [rule for _, _, rule in rules if "record" in rule]
        for file, group, rule in rules:
            if "alert" in rule:
                cases.append(Case(first + len(cases), file, rule, group, records))
    return cases


def run(folder, *command):
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def write_rules(file, cases):
    file.write_text(yaml.safe_dump({"groups": [case.group() for case in cases]}, sort_keys=False, width=1_000))


class Batch:
    """Cases that are judged together."""

    def __init__(self, cases, program, folder, seed, round_number):
        self.cases, self.program, self.folder = cases, program, folder
        self.series = {}
        for case in cases:
            self.series.update(case.series(random.Random(f"{seed} {round_number} {case.name}"), round_number))
        self.minutes = max(case.minutes for case in cases)
        # Windows are there as long as rows are, and over when later ones come.
        for name in ("up", "tick"):
            times = range((self.minutes + 2) * 60 // STEP)
            self.series[(name, (("job", "anchor"),))] = [1.0 if index * STEP % 60 else None for index in times]

    def translate(self):
        """Imports the rules; cases that are refused leave."""
        write_rules(self.folder / "rules.yml", self.cases)
        imported = self.folder / "imported"
        for file in imported.glob("*.sql"):
            file.unlink()
        said = run(self.folder, self.program, "rules", "import", "rules.yml", "--out", "imported").stderr
        reasons = dict(re.findall(r"^rules\.yml:\d+:\d+: (c\d+): (.*)", said, re.MULTILINE))
        for case in self.cases:
            if not (imported / f"{case.name}.sql").exists():
                case.refused = reasons.get(case.name, said.strip().splitlines()[-1] if said.strip() else "?")
        checked = run(self.folder, self.program, "check", "imported")
        for name, reason in re.findall(r"^\S*?(c\d+)\.sql:(.*)", checked.stdout + checked.stderr, re.MULTILINE):
            if ": error" in reason or "error:" in reason:
                next(case for case in self.cases if case.name == name).fault = f"its SQL: {reason.strip()}"
                (imported / f"{name}.sql").unlink(missing_ok=True)
        self.cases = [case for case in self.cases if not case.refused and not case.fault]

    def ours(self):
        """By case and minute, the labels of what fires."""
        rows = []
        for (name, labels), values in self.series.items():
            texts = json.dumps(dict(labels))
            for index, value in enumerate(values):
                if value is not None:
                    ts = (START + index * STEP) * 1_000_000
                    number = "null" if value == "stale" else repr(value)
                    rows.append((ts, f'{{"ts":{ts},"name":"{name}","labels":{texts},"value":{number}}}\n'))
        # promtool evaluates at the start, too.
        before = (START - STEP) * 1_000_000
        rows.append((before, f'{{"ts":{before},"name":"up","labels":{{"job":"anchor"}},"value":1.0}}\n'))
        rows.sort(key=lambda row: row[0])
        with (self.folder / "metrics.jsonl").open("w") as file:
            file.writelines(line for _, line in rows)
        done = run(self.folder, self.program, "backtest", "--rules", "imported", "--input", "metrics=metrics.jsonl")
        failed = dict(re.findall(r"^(c\d+): evaluation failed: (.*)", done.stderr, re.MULTILINE))
        if done.returncode != 0 and not failed:
            sys.exit(f"backtest: {done.stderr[-3_000:]}")
        for case in self.cases:
            if case.name in failed:
                case.fault = f"an evaluation failed: {failed[case.name]}"
        changes = collections.defaultdict(list)
        for line in done.stdout.splitlines():
            change = json.loads(line)
            others = ("alertname", "prometheus_severity")
            labels = {name: value for name, value in change["labels"].items() if name not in others}
            at = datetime.fromisoformat(change["ts"].replace("Z", "+00:00")).timestamp() - START
            changes[change["rule"], json.dumps(labels, sort_keys=True)].append((at, change["to_state"] == "firing"))
        firing = collections.defaultdict(list)
        for (rule, labels), moments in changes.items():
            for minute in range(1, self.minutes + 1):
                past = [fires for at, fires in moments if at <= minute * 60]
                if past and past[-1]:
                    firing[rule, minute].append(json.loads(labels))
        return firing

    def promtool(self, firing):
        """Compares; a case in which Prometheus finds two partners for one can't be."""
        cases = [case for case in self.cases if not case.fault]
        written = []
        for (name, labels), values in self.series.items():
            texts = ",".join(f"{label}={json.dumps(value)}" for label, value in labels)
            numbers = " ".join("_" if value is None else str(value) for value in values)
            written.append(f'  - {{series: {json.dumps(f"{name}{{{texts}}}")}, values: "{numbers}"}}\n')
        while cases:
            write_rules(self.folder / "asked.yml", cases)
            lines = ["rule_files: [asked.yml]\nevaluation_interval: 1m\ntests:\n", f"- interval: {STEP}s\n  input_series:\n"]
            lines += [*written, "  alert_rule_test:\n"]
            for case in cases:
                severity = {"severity": case.labels["severity"]} if case.labels.get("severity") else {}
                for minute in range(1, case.minutes + 1):
                    alerts = [{"exp_labels": labels | severity} for labels in firing.get((case.name, minute), [])]
                    expected = f"alertname: {case.name}, exp_alerts: {json.dumps(alerts)}"
                    lines.append(f"  - {{eval_time: {minute}m, {expected}}}\n")
            (self.folder / "tests.yml").write_text("".join(lines))
            done = run(self.folder, "promtool", "test", "rules", "tests.yml")
            said = done.stdout + done.stderr
            failed = {name: reason for name, reason in re.findall(r"rule: (\S+?), time: [^,]*, err: (.*)", said)}
            if not failed:
                break
            stuck = len(cases)
            for case in list(cases):
                names = {case.name} | {case.rename(record["record"]) for record in case.records}
                reason = next((failed[name] for name in names if name in failed), None)
                if reason:
                    cases.remove(case)
                    case.partners = reason
            if len(cases) == stuck:
                sys.exit(f"promtool: {said[:3_000]}")
        found = collections.defaultdict(list)
        for part in re.split(r"\n\s*(?=alertname: )", said)[1:] if cases else []:
            name, at = re.match(r"alertname: (\w+), time: (\w+)", part).groups()
            found[name].append((at, part))
        if cases and not found and done.returncode != 0:
            sys.exit(f"promtool: {said[:3_000]}")
        for case in cases:
            case.compared += 1
            minutes = range(1, case.minutes + 1)
            case.fired += sum(len(firing.get((case.name, minute), [])) for minute in minutes)
            case.differs += found[case.name]


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("rules", nargs="+")
    options.add_argument("--tidewatch", default="target/release/tidewatch")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--tmp")
    options.add_argument("--verbose", action="store_true", help="what both say, and every refusal")
    options = options.parse_args()
    program = str(Path(options.tidewatch).resolve())
    sources, everything = {}, []
    for source in options.rules:
        sources[source] = cases_of(source, len(everything))
        everything += sources[source]
    everything.sort(key=lambda case: case.minutes)
    with tempfile.TemporaryDirectory(dir=options.tmp) as folder:
        for first in range(0, len(everything), CASES_AT_ONCE):
            for round_number in range(options.rounds):
                cases = everything[first:first + CASES_AT_ONCE]
                cases = [case for case in cases if not case.refused and not case.fault]
                if cases:
                    batch = Batch(cases, program, Path(folder), options.seed, round_number)
                    batch.translate()
                    if batch.cases:
                        batch.promtool(batch.ours())
            print(f"{min(first + CASES_AT_ONCE, len(everything))} of {len(everything)}", file=sys.stderr)
    print("| rules of | alerts | refused | agree, with alerts | agree, without any | not compared | differ |")
    print("|---|---|---|---|---|---|---|")
    for source, cases in sources.items():
        kinds_of = collections.Counter(
            "refused" if case.refused else "differ" if case.differs or case.fault else "none" if not case.compared
            else "alerts" if case.fired else "quiet" for case in cases)
        counts = [kinds_of[kind] for kind in ("refused", "alerts", "quiet", "none", "differ")]
        print(f"| {source} | {len(cases)} | {' | '.join(map(str, counts))} |")
    print()
    reasons = collections.Counter(re.sub(r"`.*`|'[^']*'", "..", case.refused) for case in everything if case.refused)
    for reason, count in reasons.most_common(None if options.verbose else 15):
        print(f"refused {count}: {reason}")
    for case in everything:
        named = f"{case.source}: {case.rule['alert']}: {' '.join(str(case.rule['expr']).split())}"
        if case.fault or case.differs:
            how = case.fault or f"differs at {len(case.differs)} minutes, first at {case.differs[0][0]}"
            print(f"\n{case.name} {named}\n  {how}")
            if options.verbose and case.differs:
                print(case.differs[0][1])
        elif options.verbose and case.refused:
            print(f"refused {named}: {case.refused}")
        elif options.verbose and not case.compared:
            print(f"not compared {named}: {case.partners}")


if __name__ == "__main__":
    main()
