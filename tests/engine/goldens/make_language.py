#!/usr/bin/env python3
"""Writes templates/language.jsonl: snippets of the template language with what transformers' Jinja makes of them (null: an error).

  make_language.py > templates/language.jsonl        needs transformers 5.18 and jinja2 3.1
"""
import json

from transformers.utils.chat_template_utils import _compile_jinja_template

V = {"n": 7, "f": 2.5, "s": "Hello, Wörld", "e": "", "l": [3, 1, 2], "d": {"b": 1, "a": {"x": [1, 2]}, "items": "mine", "C": None}, "t": True, "z": None,
     "m": [{"role": "user", "content": " hi ", "k": 2}, {"role": "tool", "content": "b", "k": 1}, {"role": "user", "content": "c", "k": 2}]}
SNIPPETS = r"""
{{ 1 + 2 * 3 }} {{ (1 + 2) * 3 }} {{ 7 // 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 2 ** 10 }} {{ 2 ** -1 }} {{ -2 ** 2 }}
{{ 1.0 }} {{ 1e20 }} {{ 1.5e-7 }} {{ 0.1 + 0.2 }} {{ 1e16 }} {{ 123456789.125 }} {{ 1_000 }} {{ 10 / 5 }} {{ 7.5 // 2 }} {{ -7.5 % 2 }}
{{ 'a' ~ 1 ~ none ~ true ~ 1.5 ~ [1, 'x'] }} {{ 'a' + 'b' }} {{ 'ab' * 3 }} {{ [1] + [2] }} {{ (1,) + (2, 3) }} {{ (1,) }} {{ () }} {{ 3 * [0] }}
{{ true and 0 or 'x' }} {{ not e }} {{ none or false }} {{ 1 and 2 }} {{ not true and false }} {{ not (true and false) }}
{{ 1 < 2 < 3 }} {{ 1 < 3 < 2 }} {{ 1 == 1.0 }} {{ 'a' < 'b' }} {{ [1, 2] < [1, 3] }} {{ true == 1 }} {{ 'é' > 'z' }} {{ n != 7 }} {{ {'a': 1} == {'a': 1.0} }}
{{ 'ell' in s }} {{ 2 in l }} {{ 'a' in d }} {{ 'q' not in d }} {{ 1 in (1, 2) }} {{ '' in '' }} {{ 'x' in missing }}
{{ s[0] }}{{ s[-1] }}{{ s[7:9] }}{{ s[::-1] }}{{ s[:-3] }}{{ s[10:2:-2] }} {{ l[1:] }} {{ l[-2:] }} {{ l[5] }}{{ s[99] }} {{ (1,2,3)[:2] }} {{ l[::0] }}
{{ s[1:4] ~ s[-4:] ~ s[20:] ~ s[:0] }} {{ l[:] }} {{ l[-99:99] }} {{ l[2:0:-1] }} {{ l[::2] }}
{{ d.a.x[1] }} {{ d['a']['x'][0] }} {{ d.b }} {{ d.zz }} {{ d['zz'] }} {{ d.C }} {{ d['items'] }} {{ d.zz is defined }} {{ l.0 }} {{ m.0.role }}
{{ d.items() | list }} {{ d.keys() | list }} {{ d.values() | list }} {{ d.get('b') }} {{ d.get('q') }} {{ d.get('q', 5) }} {{ d.items() }} {{ d.keys() }}
{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}
{% for k in d %}{{ k }}{% endfor %} {% for c in 'añ😀' %}[{{ c }}]{% endfor %}
{% for x in l %}{{ loop.index }}{{ loop.index0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.revindex }}{{ loop.revindex0 }},{% endfor %}
{% for x in l %}{{ loop.previtem }}<{{ x }}>{{ loop.nextitem }} {% endfor %} {% for x in [1,1,2] %}{{ loop.changed(x) }}{{ loop.cycle('a', 'b') }}{% endfor %}
{% for x in l if x > 1 %}{{ x }}{{ loop.length }}{% else %}none{% endfor %} {% for x in [] %}x{% else %}none{% endfor %} {% for x in missing %}x{% else %}none{% endfor %}
{% for x in range(10) %}{% if x == 2 %}{% continue %}{% endif %}{% if x == 5 %}{% break %}{% endif %}{{ x }}{% endfor %} {{ range(2, 9, 3) | list }} {{ range(3, 0, -1) | list }}
{% for x in l %}{% for y in l %}{{ loop.index }}{% endfor %}{{ loop.index }}{% endfor %} {% for a, b in [(1, 2), (3, 4)] %}{{ a }}{{ b }}{% endfor %}
{% set x = 1 %}{% for i in l %}{% set x = x + i %}{{ x }}{% endfor %}{{ x }}
{% set ns = namespace(x=1, y='a') %}{% for i in l %}{% set ns.x = ns.x + i %}{% endfor %}{{ ns.x }}{{ ns.y }}{{ ns.q }}{{ ns['x'] }}
{% if t %}{% set q = 5 %}{% endif %}{{ q }} {% if e %}a{% elif z is none %}b{% else %}c{% endif %} {% if e %}{% set w = 1 %}{% endif %}[{{ w }}]
{% set a, b = 1, 2 %}{{ a }}{{ b }} {% set c = 1, 2 %}{{ c }} {% set x %} block {{ n }} {% endset %}[{{ x }}] {% set y | trim | upper %} ab {% endset %}[{{ y }}]
{% macro f(a, b=2, c=a) %}<{{ a }},{{ b }},{{ c }}>{% endmacro %}{{ f(1) }}{{ f(1, 3) }}{{ f(b=5, a=0) }}{{ f() }}
{% set g = 1 %}{% macro f() %}{{ g }}{{ loop }}{% endmacro %}{% set g = 2 %}{% for i in [1] %}{{ f() }}{% endfor %}
{% macro f(n) %}{{ n }}{% if n > 0 %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(5) }}
{% macro f(a) %}{{ a }}{% endmacro %}{{ f(1, 2) }}
{% with a = 1, b = n %}{{ a }}{{ b }}{% set n = 0 %}{{ n }}{% endwith %}{{ n }}{{ a }}
{% generation %}a{% set n = 1 %}{{ n }}{% endgeneration %}{{ n }}
{% raw %}{{ x }} {% if %}{% endraw %} {% raw -%}  a  {%- endraw %}b
{{ 'a' if t }} {{ 'a' if e }} {{ 'a' if e else 'b' if e else 'c' }} {{ ('x' if e) is defined }} {{ 1 if t else 2 }}
{{ s is string }}{{ n is number }}{{ f is float }}{{ n is integer }}{{ t is integer }}{{ t is boolean }}{{ z is none }}{{ z is not none }}{{ d is mapping }}{{ l is sequence }}{{ s is sequence }}{{ d is iterable }}{{ n is iterable }}
{{ n is odd }}{{ n is even }}{{ n is divisibleby(7) }}{{ n is divisibleby 2 }}{{ t is true }}{{ t is false }}{{ n is eq 7 }}{{ n is gt(3) }}{{ 'a' is in 'abc' }}{{ n is sameas none }}{{ 'ab' is lower }}{{ 'Ab' is upper }}{{ missing is undefined }}
{{ missing is sequence }}{{ missing is iterable }}{{ missing is mapping }}{{ missing is callable }}{{ d.get is callable }}{{ missing | length }}{{ missing | list }}[{{ missing }}]{{ missing ~ 'x' }}{{ missing == none }}{{ not missing }}
{{ missing.x }}
{{ missing + 'a' }}
{{ 'a' + missing }}
{{ missing() }}
{{ missing < 1 }}
{{ 'a' + 1 }}
{{ 1 / 0 }}
{{ z.x.y }}
{{ n.foo }}[{{ s.foo }}]{{ z.foo }}
{{ none + 'a' }}
{% for x in n %}{% endfor %}
{% set d.x = 1 %}
{{ l.append(4) }}
{{ d.update({}) }}
{{ raise_exception('no') }}
{{ s | upper }} {{ s | lower }} {{ 'fOO bAR' | capitalize }} {{ 'foo-bar (baz' | title }} {{ ' x ' | trim }}| {{ 'xxaxx' | trim('x') }} {{ n | string + 'a' }} {{ s | length }} {{ l | count }}
{{ s.upper() }} {{ s.lower() }} {{ 'ab cd'.capitalize() }} {{ ' a '.strip() }}|{{ ' a '.lstrip() }}|{{ ' a '.rstrip() }}| {{ 'xxaxx'.strip('x') }} {{ 'xyaxy'.lstrip('yx') }}
{{ 'a,b,,c'.split(',') }} {{ 'a,b,c'.split(',', 1) }} {{ 'a,b,c'.rsplit(',', 1) }} {{ ' a  b c '.split() }} {{ ' a  b c '.split(none, 1) }} {{ ' a  b c '.rsplit(maxsplit=1) }} {{ ''.split() }} {{ ''.split(',') }}
{{ 'a\nb\r\nc\n'.splitlines() }} {{ 'abc'.startswith('ab') }}{{ 'abc'.endswith(('x', 'c')) }} {{ 'aXbX'.replace('X', '-') }} {{ 'aXbX'.replace('X', '-', 1) }} {{ 'ab'.replace('', '.') }} {{ 'ünder'.find('d') }}{{ 'abab'.rfind('b') }}{{ 'a'.find('q') }} {{ 'banana'.count('an') }} {{ 'abc'.index('c') }}
{{ 'a-b-c'.partition('-') }} {{ 'a-b-c'.rpartition('-') }} {{ 'ab'.partition('x') }} {{ 'prefix-x'.removeprefix('prefix-') }}{{ 'a.py'.removesuffix('.py') }} {{ '-'.join(['a', 'b']) }} {{ '12'.isdigit() }}{{ 'a1'.isalpha() }}{{ 'a1'.isalnum() }}{{ ' '.isspace() }}{{ 'aB'.islower() }}
{{ missing | default('x') }} {{ z | default('x') }} {{ z | default('x', true) }} {{ e | d('y', boolean=true) }} [{{ missing | default }}] {{ missing.a | default('q') }}
{{ l | first }}{{ l | last }}{{ s | first }}[{{ [] | first }}] {{ l | sort }} {{ l | sort(reverse=true) }} {{ ['b', 'A', 'a'] | sort }} {{ ['b', 'A', 'a'] | sort(case_sensitive=true) }} {{ m | sort(attribute='k') | map(attribute='content') | list }}
{{ l | join(', ') }} {{ l | join }} {{ m | join('/', attribute='role') }} {{ l | reverse | list }} {{ 'abc' | reverse }} {{ l | sum }} {{ m | sum(attribute='k') }} {{ l | max }}{{ l | min }} {{ ['a', 'A', 'b'] | unique | list }}
{{ m | map(attribute='role') | list }} {{ ['a', 'b'] | map('upper') | join }} {{ m | selectattr('role', 'equalto', 'user') | map(attribute='content') | list }} {{ m | rejectattr('k', 'eq', 2) | list | length }} {{ l | select('odd') | list }} {{ l | reject('odd') | list }} {{ [0, 1, ''] | select | list }} {{ m | selectattr('zz') | list }} {{ [{}] | map(attribute='q', default='-') | list }}
{{ d | dictsort }} {{ {'B': 1, 'a': 2} | dictsort }} {{ {'B': 1, 'a': 2} | dictsort(true) }} {{ {'B': 1, 'a': 0} | dictsort(by='value') }} {{ d | items | list }}
{{ '3' | int }} {{ 'x' | int }} {{ 'x' | int(9) }} {{ 3.9 | int }} {{ '3.9' | int }} {{ ' 4 ' | int }} {{ none | int }} {{ '2.5' | float }} {{ 'x' | float }} {{ 2 | float }} {{ -3 | abs }} {{ 2.5 | round }} {{ 3.14159 | round(2) }} {{ 7 | round }} {{ -2.5 | abs }}
{{ s | replace('l', 'L') }} {{ s | replace('l', 'L', 1) }} {{ 5 | replace('5', 'x') }} {{ 'a\nb\n\nc' | indent }}|{{ 'a\nb' | indent(2, true) }}|{{ 'a\n\nb' | indent(1, blank=true) }} {{ d | tojson | safe }} {{ '<a href="x">' | e }} {{ ('<' | safe) ~ '>' }}
{{ d | tojson }} {{ s | tojson }} {{ s | tojson(ensure_ascii=true) }} {{ [] | tojson }} {{ d | tojson(indent=2) }} {{ d | tojson(sort_keys=false, separators=(',', ':')) }} {{ {'b': 1, 'a': 2} | tojson(sort_keys=true) }} {{ [[], {}, [[]]] | tojson(indent=1) }} {{ (1, 2) | tojson }} {{ 1e30 | tojson }} {{ 'a\u2028"\\/\x07😀' | tojson }} {{ '😀\x7f' | tojson(true) }}
{{ {1: 'a', none: 'b', 'x': 2.0} | tojson }} {{ {1: 'a', true: 'b'} }} {{ {'a': 1, 'a': 2} }} {{ d | tojson(indent='\t') }}
{{ missing | tojson }}
{{ d.items() | tojson }}
{{ ['it\'s', "q\"", 'both\'"', '\n\t\\', 'é\u200b\xad\x00\u3000', 'ok 漢😀'] }} {{ {'k': none, 2: [true]} }} {{ ('a',) }} {{ none }} {{ true }}
{{ 'a\x41\u00e9\U0001F600\'\"\\\z\
b' }}
{{ "a" "b" 'c' }} {{ [1, 2,] }} {{ {'a': 1,} }} {{ (1, 2,) }} {{ - n }} {{ + n }} {{ 'a'|upper ~ 'b' }} {{ -1|abs }} {{ n|string|length }}
{{ {'a': {'b': {}}} }}{{ [[1]] }}{{ {'a': {}}}}
a {%- if t %} b {%- endif %} c{# comment #} d {#- x -#} e
  {% if t %}
  x
  {% endif %}
y
  {%+ if t %}z{% endif +%}
a  {{- 1 -}}  b {{ 2 }}
 c
{% for x in l -%}
  {{ x }}
{%- endfor %}|
{% for x in l %}
  {{ x }}
{% endfor %}|
a
	 {# comment #}
b {# c #} d
a{% if t %}

x{% endif %}
b
{{ namespace(d) .b }} {{ namespace({'q': 1}, r=2).r }} {{ dict(a=1) }} {{ dict({'x': 1}, y=2) }}
{{ m | map(attribute='k') }}
{{ (m | map(attribute='k'))[0] }}
{{ l | batch(2) | list }}
{{ s.format(1) }}
{{ '%s' % 1 }}
{{ self }}
{% include 'x' %}
{% filter upper %}a{% endfilter %}
{% call f() %}{% endcall %}
{% block x %}{% endblock %}
{% import 'x' as y %}
{% do x %}
{{ l | nosuch }}
{{ l is nosuch }}
{% if %}{% endif %}
{{ }}
{{ 1 + }}
{% for %}{% endfor %}
{% endif %}
{% if t %}
{{ 'a
{{ a b }}
{% break %}
{{ x. }}
{{ 1 2 }}
{{ [1, 2 }}
{{ f(a=1, 2) }}
{# no end
{% raw %} no end
{{ range(1000000) | length }}
{{ 'x' is defined is defined }}
{{ ('a', 'b') | join }} {{ 5 is in [1, 5] }} {{ 'b' is in 'abc' and true }} {{ not n is odd }} {{ n is not odd or t }}
{{ s.__class__ }} {{ d.__class__ }} {{ ''['__len__'] }}
{{ m[0] | string }} {{ m[0].items() | first }} {{ m | length > 2 }} {{ m[-1].content }} {{ m[1:] | length }} {{ (m | last).role }}
{{ (1, [2], {'a': (3,)}) }} {{ [none, true, 1.0, 'x'] | string }} {{ [1, 2] | string | length }}
{%- set x = {'a': [1, {'b': 2}]} %}{{ x.a[1].b }}{{ x['a'][0] }}{{ x.a | length }}
{{ 'ÀÉß'.lower() }}{{ 'àé' | upper }}{{ 'Ωmega' | lower }}
{{ '12' + 3 | string }} {{ 3 ~ 4 + 5 }} {{ 1 ~ 2 == '12' }} {{ 10 - 2 - 3 }} {{ 2 * 3 % 4 }} {{ 2 ** 3 ** 2 }} {{ 100 // 7 // 2 }}
"""


def main():
    snippets = SNIPPETS.strip("\n").split("\n")
    # What is indented or goes on over lines is one template each: blocks are joined until their tags balance.
    multi = ["  {% if t %}\n  x\n  {% endif %}\ny\n  {%+ if t %}z{% endif +%}\n", "{% for x in l -%}\n  {{ x }}\n{%- endfor %}|\n",
             "{% for x in l %}\n  {{ x }}\n{% endfor %}|\n\n", "a\n\t {# comment #}\nb {# c #} d\r\ne\rf", "a{% if t %}\n\nx{% endif %}\nb", "{{ 'a\\x41\\u00e9\\U0001F600\\'\\\"\\\\\\z\\\nb' }}",
             "a  {{- 1 -}}  b {{ 2 }}\n c", "x\n  {%- if t %}\n\n  y{%- endif -%}\n z", "\u00a0\n\u3000{% if t %}a{% endif %}\u2003{{- 1 }}", " {% raw %}\n a {% endraw %}\nb", "{{ 'a' }}\n", "{{ 'a' }}\n\n", "\n\n{{ 1 }}"]
    for source in snippets + multi:
        try:
            text = _compile_jinja_template(source).render(**V)
        except Exception:
            text = None
        print(json.dumps({"source": source, "text": text}, ensure_ascii=False))


if __name__ == "__main__":
    print(json.dumps({"variables": V}, ensure_ascii=False))
    main()
