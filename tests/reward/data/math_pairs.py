"""Pairs of answers with math-verify's verdict: writes math_pairs.jsonl beside this file.

Needs math-verify 0.9 (pip install math-verify). Each line: kind, completion, answer, same (math-verify's verdict).
    python tests/reward/data/math_pairs.py
"""
import json
import pathlib
import random

from math_verify import parse, verify

rng = random.Random(20)


def frac(a, b, style):
    return {0: f"\\frac{{{a}}}{{{b}}}", 1: f"\\dfrac{{{a}}}{{{b}}}", 2: f"{a}/{b}", 3: f"\\tfrac{{{a}}}{{{b}}}"}[style]


def integer():
    n = rng.choice([rng.randint(-20, 20), rng.randint(100, 9999), rng.randint(10000, 9999999)])
    forms = [str(n), f"{n}.0", f"${n}$", f"{n}\\,", f" {n} ", f"+{n}" if n > 0 else str(n)]
    if abs(n) >= 1000:
        forms += [f"{n:,}", f"{n:,}".replace(",", "{,}"), f"{n:,}".replace(",", ",\\!")]
    return n, forms


def plain():
    pairs = []
    for _ in range(420):
        n, forms = integer()
        m = n + rng.choice([0, 0, 0, 1, -1, 10])
        pairs.append((rng.choice(forms), str(m)))
    for _ in range(260):
        a, b = rng.randint(-30, 30), rng.randint(1, 30)
        k = rng.randint(1, 4)
        gold = frac(a, b, rng.randint(0, 3))
        forms = [frac(a * k, b * k, rng.randint(0, 3)), frac(-a, b, 0) if rng.random() < 0.3 else frac(a, b, 1), f"-\\frac{{{-a}}}{{{b}}}",
                 frac(a, b + 1, 0), frac(a + 1, b, 2)]
        if (a * 1000) % b == 0:
            forms += [str(a / b)] * 3
        pairs.append((rng.choice(forms), gold))
    for _ in range(160):
        x = round(rng.uniform(-50, 50), rng.randint(1, 4))
        y = x if rng.random() < 0.6 else round(x + rng.choice([0.1, -0.01, 1]), 4)
        pairs.append((rng.choice([str(x), f"{x}0", f"{x:.6f}", f"${x}$"]), str(y)))
    for _ in range(60):
        a = rng.randint(1, 9)
        w, t, b = rng.randint(1, 9), rng.randint(1, 6), rng.randint(7, 12)
        pairs.append((f"{w}\\frac{{{t}}}{{{b}}}", rng.choice([frac(w * b + t, b, 0), frac(w * t, b, 0), str(a)])))
    return pairs


def decorated():
    pairs = []
    units = ["\\text{ cm}", "\\mathrm{~km}", "\\text{ square units}", "^\\circ", "^{\\circ}", " cm", " meters", "\\text{ m}^2", "\\%", "\\text{ dollars}",
             " \\text{ units}", "\\;\\text{kg}", " degrees", " hours", "\\text{ ways}"]
    for _ in range(260):
        n = rng.randint(1, 500)
        m = n + rng.choice([0, 0, 1])
        unit = rng.choice(units)
        gold = rng.choice([str(m), str(m) + unit, str(m) + rng.choice(units)])
        pairs.append((rng.choice([f"{n}{unit}", f"\\${n}", f"x={n}", f"x = {n}", f"\\text{{{n}}}", f"{n}."]), gold))
    for _ in range(80):
        n = rng.randint(1, 99)
        pairs.append((rng.choice([f"{n}\\%", f"{n}%", f"{n / 100}"]), rng.choice([f"{n}\\%", f"{n}", f"{n / 100}", f"{n}%"])))
    for _ in range(20):
        n = rng.randint(1000, 9999999)
        pairs.append((f"{n:,}".replace(",", "\\,"), str(n)))
    for _ in range(60):
        c, k = rng.randint(1, 9), rng.randint(1, 6)
        pairs.append((f"{c} \\times 10^{{{k}}}", rng.choice([str(c * 10**k), f"{c * 10**k:,}", str(c * 10 ** (k + 1)), f"{c} \\cdot 10^{k}"])))
    return pairs


def symbolic():
    pairs = []
    for _ in range(120):
        a, b = rng.randint(-9, 9), rng.randint(-9, 9)
        expanded = f"x^2 + {a + b}x + {a * b}".replace("+ -", "- ")
        wrong = f"x^2 + {a + b}x + {a * b + 1}".replace("+ -", "- ")
        factored = f"(x+{a})(x+{b})".replace("+-", "-")
        pairs.append((rng.choice([factored, f"(x + {b})(x + {a})".replace("+ -", "- "), wrong]), expanded))
    for _ in range(160):
        n, k = rng.choice([2, 3, 5, 6, 7, 10]), rng.randint(2, 6)
        gold = f"{k}\\sqrt{{{n}}}"
        forms = [f"\\sqrt{{{n * k * k}}}", f"{k} \\sqrt {n}", f"{k}\\sqrt{n}" if n < 10 else gold, f"{k + 1}\\sqrt{{{n}}}", f"{k}*sqrt({n})",
                 f"\\frac{{{k * n}}}{{\\sqrt{{{n}}}}}", f"{k} \\cdot {n}^{{1/2}}", f"{k}\\sqrt{{{n + 1}}}"]
        pairs.append((rng.choice(forms), gold))
    for _ in range(120):
        a, b = rng.randint(1, 9), rng.randint(2, 9)
        gold = f"\\frac{{{a}\\pi}}{{{b}}}"
        forms = [f"\\frac{{{a}}}{{{b}}}\\pi", f"{a}\\pi/{b}", f"\\frac{{{2 * a}\\pi}}{{{2 * b}}}", f"\\frac{{{a}\\pi}}{{{b + 1}}}", f"{a}/{b} \\pi", f"{a}\\pi"]
        pairs.append((rng.choice(forms), gold))
    for _ in range(80):
        a, b, n = rng.randint(1, 9), rng.randint(1, 9), rng.choice([2, 3, 5])
        gold = f"{a} + {b}\\sqrt{{{n}}}"
        pairs.append((rng.choice([f"{b}\\sqrt{{{n}}} + {a}", f"{a}+{b}\\sqrt{n}", f"{a} - {b}\\sqrt{{{n}}}", f"\\frac{{{2 * a} + {2 * b}\\sqrt{{{n}}}}}{{2}}"]), gold))
    for _ in range(80):
        n = rng.randint(2, 7)
        gold = rng.choice([f"2^{{{n}}}", f"\\log_2 {n}", f"e^{{{n}}}", f"{n}!", f"\\binom{{8}}{{{n}}}", f"\\ln {n}"])
        forms = {"2": str(2**n), "\\": None}
        value = {f"2^{{{n}}}": str(2**n), f"{n}!": {2: "2", 3: "6", 4: "24", 5: "120", 6: "720", 7: "5040"}[n],
                 f"\\binom{{8}}{{{n}}}": {2: "28", 3: "56", 4: "70", 5: "56", 6: "28", 7: "8"}[n]}.get(gold, gold)
        pairs.append((rng.choice([value, gold, str(n)]), gold))
    for _ in range(60):
        a, b = rng.randint(-9, 9), rng.randint(1, 9)
        pairs.append((rng.choice([f"{a}+{b}i", f"{b}i+{a}", f"{a}-{b}i"]), f"{a}+{b}i"))
    for _ in range(60):
        a, b = rng.choice("abxyz"), rng.choice("mnpq")
        pairs.append((rng.choice([f"2{a}{b}", f"2{b}{a}", f"{a}{b} + {a}{b}", f"{a}{b}", f"2 {a} {b}"]), f"2{a}{b}"))
    return pairs


def structured():
    pairs = []
    for _ in range(160):
        a, b, c = rng.randint(-9, 9), rng.randint(-9, 9), rng.randint(0, 9)
        gold = f"({a}, {b})"
        pairs.append((rng.choice([f"({a},{b})", f"\\left({a}, {b}\\right)", f"({b}, {a})", f"({a}, {b + 1})", f"({a}, {b}, {c})", f"(\\frac{{{2 * a}}}{{2}}, {b})"]), gold))
    for _ in range(120):
        a = rng.randint(-9, 5)
        b = a + rng.randint(1, 9)
        gold = rng.choice([f"[{a}, {b}]", f"({a}, {b}]", f"[{a}, {b})", f"[{a}, \\infty)", f"(-\\infty, {b})", f"(-\\infty, {a}) \\cup ({b}, \\infty)"])
        pairs.append((rng.choice([gold.replace("(", "\\left(").replace("[", "\\left[").replace(")", "\\right)").replace("]", "\\right]"), gold,
                                  f"[{a}, {b}]", f"({a}, {b}]", f"[{a}, \\infty)", f"({b}, \\infty) \\cup (-\\infty, {a})"]), gold))
    for _ in range(140):
        items = rng.sample(range(-9, 10), rng.randint(2, 4))
        shuffled = items[:]
        rng.shuffle(shuffled)
        show = lambda t: ", ".join(map(str, t))
        gold = f"\\{{{show(items)}\\}}"
        pairs.append((rng.choice([f"\\{{{show(shuffled)}\\}}", f"\\left\\{{{show(shuffled)}\\right\\}}", f"\\{{{show(items[:-1])}\\}}",
                                  f"\\{{{show(shuffled + [10])}\\}}"]), gold))
    for _ in range(60):
        items = rng.sample(range(-9, 10), 2)
        gold = f"{items[0]}, {items[1]}"
        pairs.append((rng.choice([f"{items[1]}, {items[0]}", f"{items[0]},{items[1]}", f"{items[0]} \\text{{ and }} {items[1]}", f"{items[0]} \\text{{ or }} {items[1]}",
                                  f"{items[0]}"]), gold))
    for _ in range(80):
        a, b, c, d = (rng.randint(-5, 5) for _ in range(4))
        gold = f"\\begin{{pmatrix}} {a} & {b} \\\\ {c} & {d} \\end{{pmatrix}}"
        other = rng.choice([(a, b, c, d), (a, b, c, d), (a, b, c, d + 1), (a, c, b, d)])
        shape = rng.choice(["pmatrix", "bmatrix"])
        pairs.append((f"\\begin{{{shape}}}{other[0]}&{other[1]}\\\\{other[2]}&{other[3]}\\end{{{shape}}}", gold))
    for _ in range(80):
        a, b = rng.randint(1, 9), rng.randint(-9, 9)
        gold = f"y = {a}x + {b}".replace("+ -", "- ")
        pairs.append((rng.choice([gold, f"y={a}x+{b}".replace("+-", "-"), f"{a}x + {b}".replace("+ -", "- "), f"y = {a + 1}x + {b}".replace("+ -", "- "),
                                  f"{a}x - y + {b} = 0".replace("+ -", "- ")]), gold))
    for _ in range(60):
        a = rng.randint(-9, 9)
        sign = rng.choice(["<", ">", "\\le", "\\ge", "\\leq", "\\geq"])
        gold = f"x {sign} {a}"
        pairs.append((rng.choice([gold, f"x{sign} {a}", f"x {rng.choice(['<', '>'])} {a}", f"x {sign} {a + 1}"]), gold))
    return pairs


def words():
    pairs = []
    people = ["Evelyn", "Briana", "Alice", "ellipse", "even", "odd", "no solution", "hyperbola", "Monday", "yes", "True"]
    for _ in range(100):
        a = rng.choice(people)
        b = a if rng.random() < 0.6 else rng.choice(people)
        pairs.append((rng.choice([f"\\text{{{a}}}", a, a.lower(), f"\\textbf{{{a}}}"]), f"\\text{{{b}}}"))
    for _ in range(60):
        a, b = rng.choice("ABCDE"), rng.choice("ABCDE")
        pairs.append((rng.choice([f"\\text{{({a})}}", a, f"\\text{{{a}}}", f"\\mathrm{{{a}}}"]), rng.choice([b, a, f"\\text{{({a})}}"])))
    return pairs


def main():
    out = pathlib.Path(__file__).with_name("math_pairs.jsonl")
    count = 0
    with out.open("w") as file:
        for kind in (plain, decorated, symbolic, structured, words):
            for found, gold in kind():
                completion = rng.choice(["\\boxed{%s}", "So we get $\\boxed{%s}$.", "The sum is 7, hence the answer is $\\boxed{%s}$"]) % found
                same = verify(parse(f"\\boxed{{{gold}}}", parsing_timeout=None), parse(completion, parsing_timeout=None), timeout_seconds=None)
                file.write(json.dumps({"kind": kind.__name__, "completion": completion, "answer": gold, "same": bool(same)}) + "\n")
                count += 1
    print(count, "pairs")


main()
