# Baseline of the kernels: AVX2+FMA+F16C. AVX-512 files add only their own flags and are entered after cpuid.
target_compile_options(kernels PRIVATE -mavx2 -mfma -mf16c -O3 -fno-math-errno)
