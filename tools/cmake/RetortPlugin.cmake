# libretort_cuda: every <op>_cuda.cu, the providers of kernels/plugin whose library was found, and the
# CUDA runtime, statically. Loaded on first use; nothing links to it.
set(_sources "${PROJECT_SOURCE_DIR}/kernels/plugin/plugin_cuda.cpp")
set(_providers "")
set(_libraries CUDA::cudart_static)
foreach(_pair cublaslt:cublasLt cudnn:cudnn)
  string(REPLACE ":" ";" _pair "${_pair}")
  list(GET _pair 0 _suffix)
  list(GET _pair 1 _library)
  if(TARGET gpu::${_library})
    list(APPEND _libraries gpu::${_library})
    string(TOUPPER "RETORT_HAVE_${_suffix}=1" _definition)
    list(APPEND _definitions ${_definition})
    file(GLOB _files CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/kernels/plugin/*_${_suffix}.cpp")
    foreach(_file IN LISTS _files)
      get_filename_component(_name "${_file}" NAME_WE)
      string(APPEND _providers "RETORT_PLUGIN_PROVIDER(${_name})\n")
      list(APPEND _sources "${_file}")
    endforeach()
  endif()
endforeach()
file(CONFIGURE OUTPUT "${PROJECT_BINARY_DIR}/generated/plugin_providers.inc" CONTENT "${_providers}")

set(_kernels "")
foreach(_folder IN LISTS folders)
  list(APPEND _kernels "${PROJECT_SOURCE_DIR}/kernels/${_folder}/${_folder}_cuda.cu")
endforeach()

# The kernels as an object library of their own: their flags and their launcher are nvcc's.
add_library(retort_cuda_kernels OBJECT ${_kernels})
target_include_directories(retort_cuda_kernels PRIVATE "${PROJECT_SOURCE_DIR}")
retort_cuda_options(retort_cuda_kernels)
target_compile_options(retort_cuda_kernels PRIVATE -Xptxas=-v)
set_target_properties(retort_cuda_kernels PROPERTIES
  CUDA_VISIBILITY_PRESET hidden POSITION_INDEPENDENT_CODE ON CUDA_RUNTIME_LIBRARY Static
  CUDA_COMPILER_LAUNCHER "${PROJECT_SOURCE_DIR}/tools/cmake/keep_ptxas_log.sh;${CMAKE_CXX_COMPILER_LAUNCHER}")

add_library(retort_cuda MODULE ${_sources} $<TARGET_OBJECTS:retort_cuda_kernels>)
target_compile_definitions(retort_cuda PRIVATE ${_definitions})
target_include_directories(retort_cuda PRIVATE "${PROJECT_BINARY_DIR}/generated")
target_include_directories(retort_cuda SYSTEM PRIVATE ${CUDAToolkit_INCLUDE_DIRS})
target_link_libraries(retort_cuda PRIVATE retort retort_flags ${_libraries})
set_target_properties(retort_cuda PROPERTIES CXX_VISIBILITY_PRESET hidden LINKER_LANGUAGE CXX
                      INSTALL_RPATH "$ORIGIN" INSTALL_RPATH_USE_LINK_PATH ON)
target_link_options(retort_cuda PRIVATE -Wl,--exclude-libs,ALL -Wl,-z,defs)
