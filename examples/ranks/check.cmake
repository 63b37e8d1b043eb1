# The program gives the same bits on one rank and on several, under each launcher that is here.
#   cmake -DPROGRAM=... [-DMPIRUN_openmpi=...] [-DMPIRUN_mpich=...] -P check.cmake
include("${CMAKE_CURRENT_LIST_DIR}/same_on_ranks.cmake")
same_on_ranks("mean 0x1\\.[0-9a-f]+p-8" 2 3)
