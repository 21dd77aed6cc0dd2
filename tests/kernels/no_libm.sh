#!/bin/sh
# no_libm.sh NM LIBRARY: fails when the kernels call the C library's mathematics, or when the AVX-512 file
# lends its code to others.
set -eu
undefined=$("$1" --undefined-only "$2")
# The pool creates threads, so an empty list means that nm read nothing.
if [ -z "$undefined" ]; then
  echo "no_libm: $1 found no undefined symbol in $2; is it the kernels' archive?"
  exit 1
fi
found=$(printf '%s\n' "$undefined" | awk '{print $NF}' | sort -u |
  grep -E '^(exp|exp2|expm1|log|log2|log10|log1p|sin|cos|sincos|tan|tanh|fma|pow|sqrt|rint|nearbyint|round|floor|ceil|trunc|fmax|fmin|ldexp|frexp|scalbn)[fl]?$' || true)
if [ -n "$found" ]; then
  echo "no_libm: $2 calls: $found"
  exit 1
fi
# A weak function of that object could be linked into every program and fault on a machine without AVX-512.
weak=$("$1" -A --defined-only "$2" | grep 'avx512\.cc' | grep ' [Ww] ' || true)
if [ -n "$weak" ]; then
  echo "no_libm: functions shared with other objects: $weak"
  exit 1
fi
