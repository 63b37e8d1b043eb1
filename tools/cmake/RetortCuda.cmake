# RETORT_CUDA = AUTO | ON | OFF. Sets RETORT_HAVE_CUDA; AUTO never fails the configure step.
# nvcc is looked for as CMake does (CUDACXX, PATH), then in CUDA_HOME, /usr/local/cuda and the wheel
# nvidia-cuda-nvcc (nvidia/cu13/bin/nvcc).
set(RETORT_CUDA_ARCHS "80;90a" CACHE STRING "Real architectures; the last one's PTX is embedded too")
option(RETORT_LINEINFO "Kernels know their lines of source: for profilers and for tools/ptx" OFF)
set(RETORT_HAVE_CUDA FALSE)
include(PythonNvidia)
if(NOT RETORT_CUDA STREQUAL "OFF")
  if(NOT CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX})
    find_program(RETORT_NVCC NAMES nvcc HINTS $ENV{CUDA_HOME} /usr/local/cuda ${GpuLibs_PYTHON_ROOTS} PATH_SUFFIXES bin)
    if(RETORT_NVCC)                                          # not CMAKE_CUDA_COMPILER: check_language would skip its test
      set(ENV{CUDACXX} "${RETORT_NVCC}")
      # nvcc links from ../lib64, but the wheel has ../lib only
      get_filename_component(_kit "${RETORT_NVCC}" REALPATH)
      get_filename_component(_kit "${_kit}/../.." ABSOLUTE)
      if(EXISTS "${_kit}/lib/libcudart_static.a" AND NOT EXISTS "${_kit}/lib64")
        set(ENV{CUDAFLAGS} "$ENV{CUDAFLAGS} -L${_kit}/lib")
      endif()
    endif()
  endif()
  # CMP0104: CMake wants a default before enable_language; targets get explicit -gencode flags.
  set(CMAKE_CUDA_ARCHITECTURES OFF)
  include(CheckLanguage)
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    enable_language(CUDA)
    # CMake < 3.26 does not know that nvcc >= 12 takes -std=c++20
    if(CMAKE_CUDA_COMPILER_ID STREQUAL "NVIDIA" AND NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION
       AND CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL 12.0)
      set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
      set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")
    endif()
    # FindCUDAToolkit insists on libcudart.so; the wheel has libcudart.so.13 only
    get_filename_component(_kit "${CMAKE_CUDA_COMPILER}" DIRECTORY)
    find_library(CUDA_CUDART NAMES cudart libcudart.so.13 libcudart.so.12 HINTS "${_kit}/.." ${CMAKE_CUDA_IMPLICIT_LINK_DIRECTORIES}
                 PATH_SUFFIXES lib lib64)
    find_package(CUDAToolkit QUIET)
    find_package(GpuLibs QUIET)
    if(CUDAToolkit_FOUND)
      set(RETORT_HAVE_CUDA TRUE)
    endif()
  endif()
  if(RETORT_CUDA STREQUAL "ON" AND NOT RETORT_HAVE_CUDA)
    message(FATAL_ERROR "RETORT_CUDA=ON but no usable CUDA toolkit was found")
  endif()
endif()

# retort_cuda_options(target): C++20, -gencode list, warnings forwarded to the host compiler
function(retort_cuda_options target)
  set(flags "")
  foreach(a IN LISTS RETORT_CUDA_ARCHS)
    if(RETORT_TESTS OR RETORT_BENCH)                     # with the PTX it was made from: tools/ptx runs that
      string(APPEND flags " -gencode=arch=compute_${a},code=[compute_${a},sm_${a}]")
    else()
      string(APPEND flags " -gencode=arch=compute_${a},code=sm_${a}")
    endif()
  endforeach()
  list(GET RETORT_CUDA_ARCHS -1 newest)
  string(REGEX REPLACE "a$" "" newest "${newest}")       # compute_90a PTX would run on nothing newer
  string(APPEND flags " -gencode=arch=compute_${newest},code=compute_${newest}")
  if((RETORT_TESTS OR RETORT_BENCH) AND CMAKE_CUDA_COMPILER_VERSION VERSION_LESS 13.0)  # whose compression tools/ptx cannot undo
    string(APPEND flags " --no-compress")
  endif()
  if(RETORT_LINEINFO)
    string(APPEND flags " -lineinfo")
  endif()
  # No --threads: files are compiled in parallel already, and two at a time is what small machines have.
  target_compile_options(${target} PRIVATE
    "$<$<COMPILE_LANGUAGE:CUDA>:SHELL:${flags} --expt-relaxed-constexpr -Xcompiler=-Wall,-Wextra>")
  set_target_properties(${target} PROPERTIES CUDA_STANDARD 20 CUDA_STANDARD_REQUIRED ON CUDA_ARCHITECTURES OFF)
endfunction()

# One of three kinds of machine, said in one line.
if(RETORT_CUDA STREQUAL "OFF")
  set(_kind "off")
elseif(NOT RETORT_HAVE_CUDA)
  set(_kind "no toolkit: the kernels run on the emulator only")
else()
  set(_kind "toolkit ${CMAKE_CUDA_COMPILER_VERSION}")
  foreach(_library cublasLt cudnn nccl)
    if(GpuLibs_${_library}_FOUND)
      string(APPEND _kind ", ${_library} ${GpuLibs_${_library}_VERSION}")
    else()
      string(APPEND _kind ", no ${_library}")
    endif()
  endforeach()
  if(EXISTS /proc/driver/nvidia/version OR EXISTS /dev/dxg)
    string(APPEND _kind "; with a driver")
  else()
    string(APPEND _kind "; no driver: the plug-in is built but cannot run here")
  endif()
  string(REPLACE " ," "," _kind "${_kind}")
endif()
message(STATUS "CUDA backend: ${_kind}")
