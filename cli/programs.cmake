# The two programs. `temper` links no LibTorch and starts in milliseconds; `temper-learner` holds the training side.
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
file(GLOB cli_sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/cli/*.cc)
list(FILTER cli_sources EXCLUDE REGEX "main\\.cc$")
add_library(cli STATIC ${cli_sources} ${CMAKE_SOURCE_DIR}/bench/rates.cc)
temper_flags(cli)
# Data files (reward library, quickstart's configs) are found beside an installation or here.
target_compile_definitions(cli PRIVATE TEMPER_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
target_link_libraries(cli PUBLIC learner_core reward actor store wire engine kernels configs)

add_executable(temper cli/main.cc)
temper_flags(temper)
target_link_libraries(temper PRIVATE cli)

if(TEMPER_LEARNER)
  add_executable(temper-learner cli/learner_main.cc)
  temper_flags(temper-learner)
  target_compile_definitions(temper-learner PRIVATE TEMPER_TORCH_VERSION="${Torch_VERSION}")
  target_link_libraries(temper-learner PRIVATE cli sft learner)
endif()

# End-to-end tests run the built programs.
file(GLOB cli_tests CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/tests/cli/*_test.cc)
if(NOT TEMPER_LEARNER)
  list(FILTER cli_tests EXCLUDE REGEX "(training|learning|reverse_text)_test")
endif()
add_executable(cli_test ${cli_tests} ${CMAKE_SOURCE_DIR}/bench/lossy_run.cc ${CMAKE_SOURCE_DIR}/bench/lone_learner.cc)
temper_flags(cli_test)
target_compile_definitions(cli_test PRIVATE TEMPER_SOURCE_DIR="${CMAKE_SOURCE_DIR}"
  TEMPER_PROGRAM="$<TARGET_FILE:temper>")
target_link_libraries(cli_test PRIVATE cli GTest::gtest_main)
add_dependencies(cli_test temper)
if(TEMPER_LEARNER)
  add_dependencies(cli_test temper-learner)
endif()
add_test(NAME cli COMMAND cli_test --gtest_filter=-*ReverseText*)
if(TEMPER_LEARNER)
  # Trains to a bar: minutes. scripts/test --quick leaves it out.
  add_test(NAME cli_reverse_text COMMAND cli_test --gtest_filter=*ReverseText*)
  set_tests_properties(cli_reverse_text PROPERTIES LABELS slow)
endif()

# The arrows between the rooms, held by reading the includes.
add_executable(layering_test tests/layering_test.cc)
temper_flags(layering_test)
target_compile_definitions(layering_test PRIVATE TEMPER_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
target_link_libraries(layering_test PRIVATE GTest::gtest_main)
add_test(NAME layering COMMAND layering_test)
