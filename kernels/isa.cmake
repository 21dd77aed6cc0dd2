# Baseline of the kernels: AVX2+FMA+F16C. AVX-512 files add only their own flags and are entered after cpuid.
target_compile_options(kernels PRIVATE -mavx2 -mfma -mf16c -O3 -fno-math-errno)
# g++ 12's own AVX-512 header makes undefined vectors by self-assignment and warns about it once inlined.
set(TEMPER_AVX512 -mavx512f -mavx512dq -mavx512vl -mavx512bw -Wno-uninitialized -Wno-maybe-uninitialized)
set_source_files_properties(${CMAKE_SOURCE_DIR}/kernels/avx512.cc PROPERTIES COMPILE_OPTIONS "${TEMPER_AVX512}")
set_source_files_properties(${CMAKE_SOURCE_DIR}/kernels/avx512_vbmi.cc PROPERTIES
  COMPILE_OPTIONS "${TEMPER_AVX512};-mavx512vbmi")
# The contract of one order of arithmetic ends where the C library's begins.
add_test(NAME kernels_use_no_libm
  COMMAND sh ${CMAKE_SOURCE_DIR}/tests/kernels/no_libm.sh ${CMAKE_NM} $<TARGET_FILE:kernels>)
