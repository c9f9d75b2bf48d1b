/* port.c - see port.md, whose event names the comments here use. */
#include "port.h"

#include "os.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

static dromon_task closed_mark;
#define CLOSED (&closed_mark)

int dromon_port_open(dromon_port **out) {
  dromon_port *port = aligned_alloc(_Alignof(dromon_port), sizeof *port);
  if (port == NULL)
    return -ENOMEM;
  int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (fd < 0) {
    int error = -errno;
    free(port);
    return error;
  }
  *port = (dromon_port){.references = 1, .fd = fd};
  search_init(&port->look, dromon_longest_search_ns()); /* for the same reason */
  *out = port;
  return 0;
}

void dromon_port_ref(dromon_port *port) {
  /* Relaxed: the caller already holds a reference. */
  fetch_add_relaxed(&port->references, 1);
}

void dromon_port_unref(dromon_port *port) {
  /* acq_rel: the last one sees all that the others did before they let go. */
  if (fetch_sub_acq_rel(&port->references, 1) == 1) {
    close(port->fd);
    free(port);
  }
}

int dromon_port_fd(const dromon_port *port) {
  return port->fd;
}

int dromon_port_post(dromon_port *port, dromon_task *task) {
  dromon_task *head = load_relaxed(&port->head);
  do {
    if (head == CLOSED)
      return -ESHUTDOWN;
    task->next = head;
    /* Push. Release, pairs with the exchange in take_all: the consumer sees the task's contents. */
  } while (!cas_weak_release(&port->head, &head, task));
  return 0;
}

void dromon_port_notify(dromon_port *port) {
  /* Signal. acq_rel, pairs with Clear. */
  if (exchange_acq_rel(&port->pending, 1) == 0) {
    /* Can only fail if the counter were at its maximum, and then it is readable already. */
    (void)!write(port->fd, &(uint64_t){1}, sizeof(uint64_t));
  }
}

uint32_t dromon_port_look_time(dromon_port *port) {
  return search_begin(&port->look);
}

void dromon_port_look(dromon_port *port, uint32_t length_ns) {
  uint64_t began = os_now_ns(), now;
  bool told;
  do {
    os_yield(); /* to a worker that has to run for it here */
    /* Relaxed: a hint. Who comes round looks by Clear and Take. */
    told = load_relaxed(&port->pending) != 0;
    now = os_now_ns();
  } while (!told && now - began < length_ns);
  search_end(&port->look, told, now - began);
}

int dromon_port_wait(dromon_port *port, int64_t timeout_ns) {
  struct pollfd poll_fd = {.fd = port->fd, .events = POLLIN};
  struct timespec timeout = {.tv_sec = timeout_ns / 1000000000, .tv_nsec = timeout_ns % 1000000000};
  int ready = ppoll(&poll_fd, 1, timeout_ns < 0 ? NULL : &timeout, NULL);
  if (ready < 0)
    return -errno;
  return ready == 1 ? 0 : -ETIMEDOUT;
}

static dromon_task *take_all(dromon_port *port, dromon_task *replacement) {
  /* Take. Acquire, pairs with Push. */
  dromon_task *newest = exchange_acquire(&port->head, replacement);
  if (newest == CLOSED)
    return NULL;
  dromon_task *oldest_first = NULL;
  while (newest != NULL) {
    dromon_task *next = newest->next;
    newest->next = oldest_first;
    oldest_first = newest;
    newest = next;
  }
  return oldest_first;
}

dromon_task *dromon_port_take(dromon_port *port) {
  if (load_relaxed(&port->head) == CLOSED) /* relaxed: it was this thread that closed it */
    return NULL;
  uint64_t count;
  (void)!read(port->fd, &count, sizeof count); /* Read; EAGAIN if it was not readable */
  exchange_acq_rel(&port->pending, 0);         /* Clear, pairs with Signal */
  return take_all(port, NULL);
}

dromon_task *dromon_port_close(dromon_port *port) {
  return take_all(port, CLOSED);
}
