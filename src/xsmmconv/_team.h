/* How many threads a call may ask the OpenMP runtime for, and which items each of them works on.
 *
 * The runtime ends the process where it cannot create a thread (a memory limit, a limit on
 * processes). So what a caller asks for the first time is tried out before, with threads that do
 * nothing, and memory for the runtime's own needs; where there is less, the call uses less.
 */
#ifndef XSMMCONV_TEAM_H
#define XSMMCONV_TEAM_H

#include <omp.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>

static void* team_member(void* gate)
{
  pthread_mutex_lock((pthread_mutex_t*)gate);
  pthread_mutex_unlock((pthread_mutex_t*)gate);
  return NULL;
}

/* The number of threads, at most `wanted`, that exist at the same time when this is tried. */
static int team_tried(int wanted)
{
  pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
  pthread_t* const members = (pthread_t*)malloc(wanted * sizeof(pthread_t));
  void* const needs = malloc(((size_t)wanted + 16) << 12);
  int count = 1;
  pthread_mutex_lock(&gate);
  if (NULL != members && NULL != needs) {
    while (count < wanted && 0 == pthread_create(members + count, NULL, team_member, &gate)) ++count;
  }
  pthread_mutex_unlock(&gate);
  for (int i = 1; i < count; ++i) pthread_join(members[i], NULL);
  free(needs);
  free(members);
  return count;
}

/* The same from what this thread, whose team the runtime keeps, has found before. */
static int team_of(int wanted)
{
  /* Not allocated at first use, which would end the process if there is no memory. */
  static __thread int found __attribute__((tls_model("initial-exec"))) = 1;
  if (found < wanted) found = team_tried(wanted);
  return found < wanted ? found : wanted;
}

/* The items of a call, in shares of neighbours: a thread begins with the same ones call after call,
 * so that the rows it reads and writes stay in its cache. Then it helps the others.
 */
enum { TEAM_SHARES = 64 };
typedef struct {
  int64_t next;
  int64_t end;
  char rest_of_line[48];
} team_share;

static void team_divide(team_share* shares, int64_t items, int threads)
{
  for (int i = 0; i < TEAM_SHARES; ++i) {
    const int count = threads < TEAM_SHARES ? threads : TEAM_SHARES;
    shares[i].next = i < count ? items * i / count : 0;
    shares[i].end = i < count ? items * (i + 1) / count : 0;
  }
}

/* The next item of member `me`, or -1. */
static int64_t team_next(team_share* shares, int me)
{
  for (int i = 0; i < TEAM_SHARES; ++i) {
    team_share* const share = shares + (me + i) % TEAM_SHARES;
    if (__atomic_load_n(&share->next, __ATOMIC_RELAXED) < share->end) {
      const int64_t item = __atomic_fetch_add(&share->next, 1, __ATOMIC_RELAXED);
      if (item < share->end) return item;
    }
  }
  return -1;
}

/* One item; returns the multiply-adds that it issued. `scratch` is the thread's own. */
typedef int64_t (*team_item)(const void* table, const void* arrays, int64_t item, char* scratch);

static int64_t team_share_out(team_item run, const void* table, const void* arrays, int64_t items,
                              int threads, char* scratch, int64_t stride)
{
  team_share shares[TEAM_SHARES];
  int64_t work = 0;
  team_divide(shares, items, threads);
#pragma omp parallel for num_threads(threads) schedule(static, 1) reduction(+ : work)
  for (int me = 0; me < threads; ++me) {
    char* const own = scratch + omp_get_thread_num() * stride;
    for (int64_t i = team_next(shares, me); i >= 0; i = team_next(shares, me))
      work += run(table, arrays, i, own);
  }
  return work;
}

/* All of them, by so many threads, each with `stride` bytes of scratch; returns the sum. */
static inline int64_t team_run(team_item run, const void* table, const void* arrays, int64_t items,
                               int threads, char* scratch, int64_t stride)
{
  int64_t work = 0;
  if (threads > 1 && items > 1)
    return team_share_out(run, table, arrays, items, threads, scratch, stride);
  for (int64_t i = 0; i < items; ++i) work += run(table, arrays, i, scratch);
  return work;
}

#endif
