# One program per tests/check_*.c; each links the engine and the tool's libraries and is a ctest case.
file(GLOB CHECKS CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/tests/check_*.c)
foreach(source ${CHECKS})
  get_filename_component(name ${source} NAME_WE)
  add_executable(${name} ${source})
  target_include_directories(${name} PRIVATE tests)
  target_link_libraries(${name} PRIVATE tools engine)
  target_compile_definitions(${name} PRIVATE BITPAIR_ROOT="${CMAKE_CURRENT_SOURCE_DIR}")
  add_test(NAME ${name} COMMAND ${name})
endforeach()

# check_faults refuses what the system gives: the linker leads these calls through it.
foreach(call malloc calloc realloc aligned_alloc posix_memalign strdup strndup pwrite fsync mkdir)
  target_link_options(check_faults PRIVATE "LINKER:--wrap=${call}")
endforeach()
