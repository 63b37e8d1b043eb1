# Flags for all our targets, and the two functions that make the rooms.
include(CheckIncludeFileCXX)
find_package(Threads REQUIRED)

add_library(retort_flags INTERFACE)
target_include_directories(retort_flags INTERFACE "$<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}>" "$<BUILD_INTERFACE:${PROJECT_BINARY_DIR}/generated>")
set(_warnings -Wall -Wextra -Wpedantic -Wno-unknown-pragmas)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  # False alarms of GCC 12: std::string + literal (bug 105329), moved-from std::variant (bug 105562).
  list(APPEND _warnings -Wno-restrict -Wno-maybe-uninitialized)
endif()
if(RETORT_WERROR)
  list(APPEND _warnings -Werror)
endif()
target_compile_options(retort_flags INTERFACE "$<$<COMPILE_LANGUAGE:CXX>:${_warnings}>")
if(RETORT_SANITIZE)
  # No -g: it doubles the build time of the sanitizer presets; reports name functions without it.
  set(_sanitize -fsanitize=${RETORT_SANITIZE} -fno-omit-frame-pointer)
  if(RETORT_SANITIZE MATCHES "undefined")
    # Without the checks that AddressSanitizer's SEGV reports cover (null) or that find least for what they cost to
    # compile (with PCH, heap_test.cpp took 4.7 s with them and 3.5 s without).
    list(APPEND _sanitize -fno-sanitize-recover=undefined -fno-sanitize=null,vptr,object-size)
  endif()
  target_compile_options(retort_flags INTERFACE "$<$<COMPILE_LANGUAGE:CXX>:${_sanitize}>")
  target_link_options(retort_flags INTERFACE ${_sanitize})
  target_compile_definitions(retort_flags INTERFACE RETORT_SANITIZED=1)
endif()
target_link_libraries(retort_flags INTERFACE Threads::Threads)

# ThreadSanitizer does not understand libgomp: that build uses std::thread (kernels/common/parallel.cpp).
if(NOT RETORT_SANITIZE MATCHES "thread")
  find_package(OpenMP COMPONENTS CXX)
  if(OpenMP_CXX_FOUND)
    target_link_libraries(retort_flags INTERFACE OpenMP::OpenMP_CXX)
  endif()
endif()

find_package(Eigen3 3.4 REQUIRED NO_MODULE)
# parallel_for is the only thing that starts threads: what Eigen splits would depend on their number.
target_compile_definitions(retort_flags INTERFACE EIGEN_DONT_PARALLELIZE)
set(RETORT_HAVE_ONEDNN OFF)
if(NOT RETORT_ONEDNN STREQUAL "OFF" AND NOT RETORT_SANITIZE MATCHES "thread")
  # Not by find_package(dnnl): Debian's package file insists on the OpenCL headers, which nothing here needs.
  find_path(RETORT_ONEDNN_INCLUDE oneapi/dnnl/dnnl.hpp)
  find_library(RETORT_ONEDNN_LIBRARY dnnl)
  if(RETORT_ONEDNN_INCLUDE AND RETORT_ONEDNN_LIBRARY)
    set(RETORT_HAVE_ONEDNN ON)
    add_library(DNNL::dnnl SHARED IMPORTED)
    set_target_properties(DNNL::dnnl PROPERTIES IMPORTED_LOCATION "${RETORT_ONEDNN_LIBRARY}" INTERFACE_INCLUDE_DIRECTORIES "${RETORT_ONEDNN_INCLUDE}")
  elseif(RETORT_ONEDNN STREQUAL "ON")
    message(FATAL_ERROR "RETORT_ONEDNN=ON but oneDNN (libdnnl-dev) was not found")
  endif()
endif()
find_path(RETORT_HIGHWAY_INCLUDE hwy/highway.h)
find_library(RETORT_HIGHWAY_LIBRARY hwy)
if(NOT RETORT_HIGHWAY_INCLUDE OR NOT RETORT_HIGHWAY_LIBRARY)
  message(FATAL_ERROR "Highway was not found: install libhwy-dev (tools/install_packages.sh lists everything)")
endif()

# retort_precompile(TARGET HEADER [ALWAYS]): HEADER is parsed once for all files of TARGET, instead of for a second and
# more in each: in sanitizer builds and where RETORT_PRECOMPILE asks for it (tools/test.sh). Not where one works on the
# sources, so that a missing #include shows there, unless ALWAYS is given.
option(RETORT_PRECOMPILE "Precompile what most files include" OFF)
function(retort_precompile target header)
  if(RETORT_SANITIZE OR RETORT_PRECOMPILE OR "${ARGN}" STREQUAL "ALWAYS")
    target_precompile_headers(${target} PRIVATE "$<$<COMPILE_LANGUAGE:CXX>:${PROJECT_SOURCE_DIR}/${header}>")
  endif()
endfunction()

# retort_unite(TARGET): with RETORT_UNITY, several of its files are compiled at once, which takes less than half the
# time of one after another, but all of them again where one has changed: for builds from nothing (demo.sh, test.sh).
option(RETORT_UNITY "Compile several files of a room at once" OFF)
function(retort_unite target)
  if(RETORT_UNITY)
    set_target_properties(${target} PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 8)
    # A class in a .cpp file whose members are of types in an unnamed namespace is no mistake.
    target_compile_options(${target} PRIVATE $<$<CXX_COMPILER_ID:GNU>:-Wno-subobject-linkage>)
  endif()
endfunction()

# retort_add_room(NAME): an object library of all .cpp files below the room's folder, except those of
# op folders, which retort_add_op adds, and the plug-ins' own.
function(retort_add_room name)
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS "${CMAKE_CURRENT_SOURCE_DIR}/*.cpp")
  list(FILTER sources EXCLUDE REGEX "/kernels/(simt|plugin)/|/mpi_plugin\\.cpp$|/kernels/[^/]+/[^/]+_cpu[^/]*\\.cpp$")
  if(NOT sources)
    set(sources "${PROJECT_SOURCE_DIR}/tools/cmake/empty.cpp")
  endif()
  add_library(retort_${name} OBJECT ${sources})
  if(NOT name STREQUAL "kernels")  # whose files compile themselves once for each instruction set
    retort_unite(retort_${name})
  else()
    target_compile_options(retort_${name} PRIVATE $<$<CONFIG:Release>:-O3>)  # loops; the rest builds faster with -O2
    if(RETORT_SANITIZE)  # the same source for one instruction set fewer: a third of the time it takes to build
      target_compile_definitions(retort_${name} PRIVATE HWY_BROKEN_TARGETS=HWY_AVX3)
    endif()
  endif()
  target_link_libraries(retort_${name} PUBLIC retort_flags)
  target_include_directories(retort_${name} SYSTEM PRIVATE "${RETORT_HIGHWAY_INCLUDE}")
  target_link_libraries(retort_${name} PRIVATE Eigen3::Eigen)
  if(RETORT_HAVE_ONEDNN)
    target_link_libraries(retort_${name} PRIVATE DNNL::dnnl)
    target_compile_definitions(retort_${name} PRIVATE RETORT_WITH_ONEDNN=1)
  endif()
  retort_precompile(retort_${name} tools/cmake/precompiled.h)
  set_property(GLOBAL APPEND PROPERTY RETORT_ROOMS retort_${name})
endfunction()

# retort_add_op(NAME): one op = one folder kernels/NAME, one line, one test. Adds its CPU sources to the
# kernels room and its NAME_cuda.cu to the plug-ins, and refuses to configure without its test.
function(retort_add_op name)
  file(GLOB cpu CONFIGURE_DEPENDS "${CMAKE_CURRENT_SOURCE_DIR}/${name}/*_cpu*.cpp")
  target_sources(retort_kernels PRIVATE ${cpu})
  if(EXISTS "${CMAKE_CURRENT_SOURCE_DIR}/${name}/${name}_cuda.cu")
    set_property(GLOBAL APPEND PROPERTY RETORT_PLUGIN_FOLDERS ${name})
  endif()
  if(RETORT_TESTS AND NOT EXISTS "${PROJECT_SOURCE_DIR}/tests/kernels/${name}_test.cpp")
    message(FATAL_ERROR "op '${name}' has no test: expected tests/kernels/${name}_test.cpp")
  endif()
endfunction()
