# kernels_cuda: every .cu of this folder by nvcc, one command a file. No CMake language: any CMake then works with any nvcc,
# and a build without CUDA asks for none.
set(TEMPER_CUDA_TOOLKIT "" CACHE PATH "What scripts/cuda-toolkit prepared; empty: build-toolkit/")
if(NOT TEMPER_CUDA_TOOLKIT)
  set(TEMPER_CUDA_TOOLKIT ${CMAKE_SOURCE_DIR}/build-toolkit)
endif()
if(NOT EXISTS ${TEMPER_CUDA_TOOLKIT}/bin/nvcc)
  message(FATAL_ERROR "TEMPER_CUDA: no toolkit at ${TEMPER_CUDA_TOOLKIT}; run scripts/cuda-toolkit")
endif()
# A spill is an error in kernels of our own. -fmad=false: what is fused is written fmaf, as on the CPU.
set(TEMPER_CUDA_TARGETS "90a" CACHE STRING "of the kernels: 80, 89, 90a, 80-ptx, separated by blanks; CUTLASS's is for 90a alone")
set(gencode)
set(gencode_fp8)  # mma.sync takes E4M3 from sm_89 on; the engine does without that kernel
separate_arguments(targets UNIX_COMMAND "${TEMPER_CUDA_TARGETS}")
foreach(target IN LISTS targets)
  string(REGEX MATCH "^[0-9]+a?" number ${target})
  if(target MATCHES "-ptx$")
    set(flag -gencode=arch=compute_${number},code=compute_${number})
  else()
    set(flag -gencode=arch=compute_${number},code=sm_${number})
  endif()
  list(APPEND gencode ${flag})
  if(NOT number MATCHES "^8[0-8]$")
    list(APPEND gencode_fp8 ${flag})
  endif()
endforeach()
if(NOT gencode_fp8)
  set(gencode_fp8 -arch=sm_90a)
endif()
set(TEMPER_NVCC ${TEMPER_CUDA_TOOLKIT}/bin/nvcc -std=c++20 -O3 -fmad=false -lineinfo
  -I${CMAKE_SOURCE_DIR} -I${TEMPER_CUDA_TOOLKIT}/include
  -I${TEMPER_CUDA_TOOLKIT}/cutlass_util -DNDEBUG)
set(TEMPER_NVCC_OWN -Xcompiler=-Wall,-Werror -Werror=all-warnings)
if(TEMPER_CUDA_TARGETS STREQUAL "90a")  # older targets spill a word or two, and nobody tunes for them
  list(APPEND TEMPER_NVCC_OWN -Xptxas=-warn-spills,-Werror)
endif()
# CUTLASS warns about itself; -lineinfo would double its object.
set(TEMPER_NVCC_CUTLASS -arch=sm_90a --expt-relaxed-constexpr -diag-suppress=2908,20013,20015)

file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/kernels/cuda/*.cu)
set(objects)
foreach(source IN LISTS sources)
  get_filename_component(name ${source} NAME_WE)
  set(object ${CMAKE_BINARY_DIR}/cuda/${name}.o)
  set(flags ${TEMPER_NVCC_OWN} ${gencode})
  if(name STREQUAL "fp8_gemm")
    set(flags ${TEMPER_NVCC_OWN} ${gencode_fp8})
  endif()
  if(name MATCHES "^cutlass_")
    set(flags ${TEMPER_NVCC_CUTLASS})
  endif()
  add_custom_command(OUTPUT ${object} DEPENDS ${source} DEPFILE ${object}.d COMMENT "nvcc ${name}.cu"
    COMMAND ${CMAKE_COMMAND} -E make_directory ${CMAKE_BINARY_DIR}/cuda
    COMMAND ${TEMPER_NVCC} ${flags} -MD -MF ${object}.d -MT ${object} -c ${source} -o ${object} VERBATIM)
  list(APPEND objects ${object})
endforeach()

add_library(kernels_cuda STATIC ${objects})
set_target_properties(kernels_cuda PROPERTIES LINKER_LANGUAGE CXX)
target_include_directories(kernels_cuda SYSTEM PUBLIC ${TEMPER_CUDA_TOOLKIT}/include)
target_link_libraries(kernels_cuda PUBLIC kernels ${TEMPER_CUDA_TOOLKIT}/lib64/libcudart_static.a ${CMAKE_DL_LIBS} rt)

# engine/cuda (cmake/temper.cmake adds its sources): the engine of a build with CUDA.
target_include_directories(engine SYSTEM PUBLIC ${TEMPER_CUDA_TOOLKIT}/include)
target_compile_definitions(engine PRIVATE TEMPER_CUDA_TARGETS="${TEMPER_CUDA_TARGETS}")
target_link_libraries(engine PUBLIC kernels_cuda)

# NAME LIBRARY FILE...: tests of tests/simt on a device, unchanged; exit 77 where there is none.
function(temper_device_test name library)
  add_executable(${name}_test ${ARGN} ${CMAKE_SOURCE_DIR}/tests/simt/device_main.cc)
  temper_flags(${name}_test)
  target_compile_definitions(${name}_test PRIVATE TEMPER_ON_DEVICE)
  target_link_libraries(${name}_test PRIVATE ${library} GTest::gtest)
  add_test(NAME ${name} COMMAND ${name}_test)
  set_tests_properties(${name} PROPERTIES SKIP_RETURN_CODE 77)
endfunction()

file(GLOB device_tests CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/tests/simt/*_test.cc)
list(FILTER device_tests EXCLUDE REGEX "machine_test\\.cc$")
temper_device_test(device kernels_cuda ${device_tests})

file(GLOB engine_tests CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/tests/simt/engine/*_test.cc)
list(FILTER engine_tests EXCLUDE REGEX "(errors|bench|key_table|fabric)_test\\.cc$")
temper_device_test(device_engine engine ${engine_tests})

if(TEMPER_LEARNER)
  add_executable(device_learner_test EXCLUDE_FROM_ALL ${CMAKE_SOURCE_DIR}/tests/simt/learner/policy_test.cc
    ${CMAKE_SOURCE_DIR}/tests/simt/learner/rollout_test.cc ${CMAKE_SOURCE_DIR}/tests/simt/device_main.cc)
  temper_flags(device_learner_test)
  target_link_libraries(device_learner_test PRIVATE learner GTest::gtest)
  temper_torch_headers(device_learner_test)
endif()

add_executable(cuda_bench bench/cuda_bench.cc bench/cuda_kernels.cc)
temper_flags(cuda_bench)
target_link_libraries(cuda_bench PRIVATE engine)
