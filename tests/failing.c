/* Allocation that fails when it is told to: put before the C library's by LD_PRELOAD. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/mman.h>

static atomic_long granted = -1; /* how many requests still succeed; negative: all */
static atomic_long refusals;     /* how many fail after these */
static atomic_long live;         /* blocks that have not been freed */

/* Grant `first` requests, refuse the next `count`, then grant all again. Returns how many were
 * still to be refused. */
long fail(long first, long count)
{
  granted = -1;
  const long left = atomic_exchange(&refusals, count);
  granted = first;
  return left;
}

long blocks(void) { return live; }

static int refused(void)
{
  if (granted < 0 || atomic_fetch_sub(&granted, 1) > 0) return 0;
  if (atomic_fetch_sub(&refusals, 1) <= 0) {
    refusals = 0;
    return 0;
  }
  granted = 0;
  errno = ENOMEM;
  return 1;
}

extern void* __libc_malloc(size_t);
extern void* __libc_calloc(size_t, size_t);
extern void* __libc_realloc(void*, size_t);
extern void* __libc_memalign(size_t, size_t);
extern void __libc_free(void*);

static void* counted(void* block)
{
  live += NULL != block;
  return block;
}

void* malloc(size_t size) { return refused() ? NULL : counted(__libc_malloc(size)); }
void* calloc(size_t n, size_t size) { return refused() ? NULL : counted(__libc_calloc(n, size)); }

void* realloc(void* old, size_t size)
{
  if (NULL == old) return malloc(size);
  return refused() ? NULL : __libc_realloc(old, size);
}

int posix_memalign(void** block, size_t alignment, size_t size)
{
  if (refused()) return ENOMEM;
  *block = counted(__libc_memalign(alignment, size));
  return NULL == *block ? ENOMEM : 0;
}

void free(void* block)
{
  live -= NULL != block;
  __libc_free(block);
}

void* mmap(void* at, size_t size, int protection, int flags, int file, off_t offset)
{
  static void* (*next)(void*, size_t, int, int, int, off_t);
  if (NULL == next) *(void**)&next = dlsym(RTLD_NEXT, "mmap");
  return refused() ? MAP_FAILED : next(at, size, protection, flags, file, offset);
}

/* The same function: programs with 64-bit file offsets call it by this name. */
void* mmap64(void*, size_t, int, int, int, off_t) __attribute__((alias("mmap")));
