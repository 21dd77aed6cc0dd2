# Finds LibTorch for learner/ and sft/: CMAKE_PREFIX_PATH first, then the environment that scripts/setup makes (.venv).
# Gives TEMPER_TORCH, what temper_library(... LINKS) takes, and temper_torch_headers(target), the precompiled torch/torch.h.

# Without a CUDA toolkit TorchConfig refuses a wheel that was built for CUDA, although its CPU libraries are whole: they are
# all that a CPU build links, and they find their own dependencies beside them.
macro(temper_cpu_half_of_libtorch root)
  get_filename_component(TORCH_INSTALL_PREFIX ${root} ABSOLUTE)
  add_library(temper_torch_cpu INTERFACE)
  target_include_directories(temper_torch_cpu SYSTEM INTERFACE
    ${TORCH_INSTALL_PREFIX}/include ${TORCH_INSTALL_PREFIX}/include/torch/csrc/api/include)
  target_link_libraries(temper_torch_cpu INTERFACE
    ${TORCH_INSTALL_PREFIX}/lib/libtorch_cpu.so ${TORCH_INSTALL_PREFIX}/lib/libc10.so)
  target_link_options(temper_torch_cpu INTERFACE -Wl,--allow-shlib-undefined)
  target_compile_definitions(temper_torch_cpu INTERFACE USE_DISTRIBUTED USE_C10D_GLOO)
  file(STRINGS ${TORCH_INSTALL_PREFIX}/version.py Torch_VERSION REGEX "^__version__")
  string(REGEX MATCH "[0-9]+[.][0-9]+[.][0-9]+" Torch_VERSION "${Torch_VERSION}")
  set(TORCH_LIBRARIES temper_torch_cpu)
  set(Torch_FOUND TRUE)
endmacro()

set(CMAKE_MESSAGE_LOG_LEVEL ERROR)  # TorchConfig warns of a missing profiler library that nothing here uses
find_package(Torch QUIET)
if(NOT Torch_FOUND AND EXISTS ${CMAKE_SOURCE_DIR}/.venv/bin/python)
  execute_process(
    COMMAND ${CMAKE_SOURCE_DIR}/.venv/bin/python -c "import torch; print(torch.utils.cmake_prefix_path)"
    OUTPUT_VARIABLE prefix OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_VARIABLE complaint RESULT_VARIABLE failed)
  if(failed)
    message(STATUS ".venv has no working torch: ${complaint}")
  else()
    file(STRINGS ${prefix}/../../version.py cuda REGEX "^cuda.*= '[0-9]")
    if(cuda)
      temper_cpu_half_of_libtorch(${prefix}/../..)
    else()
      list(APPEND CMAKE_PREFIX_PATH ${prefix})
      find_package(Torch QUIET)
    endif()
  endif()
endif()
unset(CMAKE_MESSAGE_LOG_LEVEL)
if(NOT Torch_FOUND)
  message(FATAL_ERROR "LibTorch (>= 2.6) was not found. Run scripts/setup, which puts it into .venv, or name one with "
    "-DCMAKE_PREFIX_PATH=<prefix>, or build the inference side alone with -DTEMPER_LEARNER=OFF.")
endif()
if(Torch_VERSION AND Torch_VERSION VERSION_LESS 2.6)
  message(FATAL_ERROR "LibTorch ${Torch_VERSION} at ${TORCH_INSTALL_PREFIX} is too old: 2.6 or newer is needed.")
endif()
message(STATUS "LibTorch ${Torch_VERSION} at ${TORCH_INSTALL_PREFIX}")
set(TEMPER_TORCH ${TORCH_LIBRARIES})
# The wheel has Gloo inside but not its headers. Included only: nothing links Debian's libgloo.
find_path(TEMPER_GLOO gloo/algorithm.h)
if(NOT TEMPER_GLOO)
  message(FATAL_ERROR "gloo/algorithm.h was not found: install libgloo-dev (scripts/setup does).")
endif()

# Ranks on GPUs speak NCCL, whose header no wheel of torch has among its own.
if(TEMPER_CUDA AND TARGET torch_cuda)
  find_path(TEMPER_NCCL_INCLUDE nccl.h)
  if(NOT TEMPER_NCCL_INCLUDE)
    message(FATAL_ERROR "nccl.h was not found: name its folder with -DTEMPER_NCCL_INCLUDE (scripts/cuda-build does).")
  endif()
  add_library(temper_nccl INTERFACE)
  target_include_directories(temper_nccl SYSTEM INTERFACE ${TEMPER_NCCL_INCLUDE})
  target_compile_definitions(temper_nccl INTERFACE TEMPER_NCCL)
  list(APPEND TEMPER_TORCH temper_nccl)
endif()

# torch/torch.h costs 15 to 30 s a translation unit: compiled once for learner, which comes first, and reused by the others.
function(temper_torch_headers target)
  target_compile_options(${target} PRIVATE -fpch-preprocess)
  if(target STREQUAL "learner")
    target_precompile_headers(${target} PRIVATE <torch/torch.h>)
  else()
    target_precompile_headers(${target} REUSE_FROM learner)
  endif()
endfunction()
