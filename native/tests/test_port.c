/* test_port.c - tests of the completion port. */
#include "port.h"
#include "testing.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>

struct mail {
  dromon_task task; /* first, so that a task is its mail */
  struct item item;
};

static struct mail *mail_of(dromon_task *task) {
  return (struct mail *)task;
}

static dromon_port *port_make(void) {
  dromon_port *port;
  CHECK_EQ(dromon_port_open(&port), 0);
  return port;
}

static struct mail *mails_make(unsigned count) {
  struct mail *mails = calloc(count, sizeof *mails);
  CHECK(mails != NULL);
  for (unsigned i = 0; i < count; i++) {
    dromon_task_init(&mails[i].task);
    mails[i].item.number = i;
  }
  return mails;
}

static bool is_readable(dromon_port *port, int timeout_ms) {
  struct pollfd poll_for = {.fd = dromon_port_fd(port), .events = POLLIN};
  return poll(&poll_for, 1, timeout_ms) == 1;
}

/* Reads the eventfd behind the port's back: how often it was written since it was last read. */
static uint64_t writes_to(dromon_port *port) {
  uint64_t count;
  if (read(dromon_port_fd(port), &count, sizeof count) < 0) {
    CHECK_EQ(errno, EAGAIN);
    return 0;
  }
  return count;
}

static void check_list(dromon_task *first, unsigned from, unsigned count) {
  for (unsigned i = 0; i < count; i++, first = first->next) {
    CHECK(first != NULL);
    CHECK_EQ(mail_of(first)->item.number, from + i);
  }
  CHECK(first == NULL);
}

static void a_new_port_is_empty_and_not_readable(void) {
  dromon_port *port = port_make();
  CHECK(!is_readable(port, 0));
  CHECK(dromon_port_take(port) == NULL);
  CHECK(!is_readable(port, 0));
  dromon_port_unref(port);
}

static void the_fd_does_not_block_and_is_closed_on_exec(void) {
  dromon_port *port = port_make();
  CHECK(fcntl(dromon_port_fd(port), F_GETFL) & O_NONBLOCK);
  CHECK(fcntl(dromon_port_fd(port), F_GETFD) & FD_CLOEXEC);
  dromon_port_unref(port);
}

static void the_fd_is_closed_with_the_last_reference(void) {
  dromon_port *port = port_make();
  int fd = dromon_port_fd(port);
  dromon_port_ref(port);
  dromon_port_unref(port);
  CHECK(fcntl(fd, F_GETFD) >= 0);
  dromon_port_unref(port);
  CHECK_EQ(fcntl(fd, F_GETFD), -1);
  CHECK_EQ(errno, EBADF);
}

static void a_burst_writes_the_eventfd_once(void) {
  dromon_port *port = port_make();
  struct mail *mails = mails_make(5);
  for (int i = 0; i < 5; i++) {
    CHECK_EQ(dromon_port_post(port, &mails[i].task), 0);
    dromon_port_notify(port);
  }
  CHECK(is_readable(port, 0));
  CHECK_EQ(writes_to(port), 1);
  check_list(dromon_port_take(port), 0, 5);
  CHECK(!is_readable(port, 0));
  dromon_port_unref(port);
  free(mails);
}

static void a_post_alone_does_not_tell_the_consumer(void) {
  dromon_port *port = port_make();
  struct mail *mails = mails_make(1);
  CHECK_EQ(dromon_port_post(port, &mails[0].task), 0);
  CHECK(!is_readable(port, 0));
  dromon_port_notify(port);
  CHECK(is_readable(port, 0));
  check_list(dromon_port_take(port), 0, 1);
  dromon_port_unref(port);
  free(mails);
}

static void take_gives_the_oldest_first(void) {
  dromon_port *port = port_make();
  struct mail *mails = mails_make(100);
  for (int i = 0; i < 100; i++)
    CHECK_EQ(dromon_port_post(port, &mails[i].task), 0);
  check_list(dromon_port_take(port), 0, 100);
  CHECK(dromon_port_take(port) == NULL);
  dromon_port_unref(port);
  free(mails);
}

static void a_notify_after_a_take_makes_it_readable_again(void) {
  dromon_port *port = port_make();
  struct mail *mails = mails_make(10);
  for (unsigned i = 0; i < 10; i++) {
    CHECK_EQ(dromon_port_post(port, &mails[i].task), 0);
    dromon_port_notify(port);
    CHECK(is_readable(port, 0));
    check_list(dromon_port_take(port), i, 1);
    CHECK(!is_readable(port, 0));
  }
  dromon_port_unref(port);
  free(mails);
}

/* A task taken by the round of an earlier notify: its own notify makes one empty round, no more. */
static void a_late_notify_makes_one_empty_round(void) {
  dromon_port *port = port_make();
  struct mail *mails = mails_make(1);
  CHECK_EQ(dromon_port_post(port, &mails[0].task), 0);
  check_list(dromon_port_take(port), 0, 1);
  dromon_port_notify(port);
  CHECK(is_readable(port, 0));
  CHECK(dromon_port_take(port) == NULL);
  CHECK(!is_readable(port, 0));
  dromon_port_unref(port);
  free(mails);
}

static void a_look_leaves_what_it_was_told_for_take(void) {
  dromon_port *port = port_make();
  struct mail *mails = mails_make(1);
  CHECK_EQ(dromon_port_post(port, &mails[0].task), 0);
  dromon_port_notify(port);
  dromon_port_look(port, dromon_port_look_time(port));
  CHECK(is_readable(port, 0));
  check_list(dromon_port_take(port), 0, 1);
  dromon_port_unref(port);
  free(mails);
}

static void a_look_in_vain_ends_too(void) {
  dromon_port *port = port_make();
  dromon_port_look(port, dromon_port_look_time(port));
  CHECK(!is_readable(port, 0));
  dromon_port_unref(port);
}

static void close_gives_what_is_left_and_refuses_posts(void) {
  dromon_port *port = port_make();
  struct mail *mails = mails_make(4);
  for (int i = 0; i < 3; i++)
    CHECK_EQ(dromon_port_post(port, &mails[i].task), 0);
  check_list(dromon_port_close(port), 0, 3);
  CHECK_EQ(dromon_port_post(port, &mails[3].task), -ESHUTDOWN);
  CHECK(dromon_port_take(port) == NULL);
  CHECK_EQ(dromon_port_post(port, &mails[3].task), -ESHUTDOWN);
  CHECK(dromon_port_close(port) == NULL);
  dromon_port_notify(port); /* of a producer that posted before the close */
  CHECK(dromon_port_take(port) == NULL);
  dromon_port_unref(port);
  free(mails);
}

static void a_taken_task_may_be_posted_again(void) {
  dromon_port *port = port_make();
  struct mail *mails = mails_make(2);
  for (int round = 0; round < 100; round++) {
    CHECK_EQ(dromon_port_post(port, &mails[0].task), 0);
    CHECK_EQ(dromon_port_post(port, &mails[1].task), 0);
    check_list(dromon_port_take(port), 0, 2);
  }
  dromon_port_unref(port);
  free(mails);
}

/* ---- Stress --------------------------------------------------------------------------------- */

struct stress {
  dromon_port *port;
  struct mail *mails;
  unsigned producers;
  unsigned per_producer;
  unsigned burst; /* a producer that has posted so many waits until all of all were received */
  uint32_t received;
  unsigned refused;
};

static void produce(void *arg, unsigned producer) {
  struct stress *stress = arg;
  unsigned seed = producer;
  for (unsigned number = 0; number < stress->per_producer; number++) {
    if (number % stress->burst == 0)
      await_count(&stress->received, number * stress->producers);
    dither(&seed);
    struct mail *mail = &stress->mails[producer * stress->per_producer + number];
    mail->item.producer = producer;
    mail->item.number = number;
    if (dromon_port_post(stress->port, &mail->task) == 0)
      dromon_port_notify(stress->port);
    else
      fetch_add_relaxed(&stress->refused, 1);
  }
}

static unsigned receive(struct order *order, dromon_task *task) {
  unsigned count = 0;
  while (task != NULL) {
    struct mail *mail = mail_of(task);
    task = task->next;
    order_check(order, &mail->item);
    mail->item.times_received++;
    count++;
  }
  return count;
}

/* Waits until the consumer is told; at first awake, so that it is there soon after the first post,
 * while there are more to come. */
static bool await_told(dromon_port *port) {
  for (int tries = 0; tries < 100; tries++) {
    if (is_readable(port, 0))
      return true;
  }
  return is_readable(port, HANGS_AFTER_MS);
}

/* Takes `count` tasks, and none without having been told. */
static void receive_when_told(struct stress *stress, unsigned count) {
  struct order order = {0};
  while (stress->received < count) {
    CHECK(await_told(stress->port)); /* else a wake-up was lost */
    raise_count(&stress->received, receive(&order, dromon_port_take(stress->port)));
  }
  CHECK_EQ(stress->received, count);
}

static void stress_begin(struct stress *stress, struct threads *threads, unsigned producers,
                         unsigned burst, unsigned total) {
  unsigned per_producer = rounds(total / producers);
  *stress = (struct stress){
      .port = port_make(),
      .mails = mails_make(per_producer * producers),
      .producers = producers,
      .per_producer = per_producer,
      .burst = burst,
  };
  threads_start(threads, producers, produce, stress);
}

static void stress_end(struct stress *stress) {
  dromon_port_unref(stress->port);
  free(stress->mails);
}

static void stress_port(unsigned producers, unsigned burst, unsigned total) {
  struct stress stress;
  struct threads threads;
  stress_begin(&stress, &threads, producers, burst, total);
  receive_when_told(&stress, producers * stress.per_producer);
  threads_join(&threads);
  for (unsigned i = 0; i < producers * stress.per_producer; i++)
    CHECK_EQ(stress.mails[i].item.times_received, 1);
  stress_end(&stress);
}

/* Short bursts, and no later one covers up a wake-up that was lost. */
static void no_wake_up_is_lost(void) {
  stress_port(1, 1, 50000);
  stress_port(1, 2, 500000);
  stress_port(2, 1, 100000);
  stress_port(3, 2, 100000);
}

static void a_flood_loses_nothing_and_keeps_each_producers_order(void) {
  stress_port(4, UINT32_MAX, 2000000);
}

static void a_close_amid_posts_leaves_each_task_with_one_side(void) {
  for (unsigned round = rounds(500); round > 0; round--) {
    struct stress stress;
    struct order order = {0};
    struct threads threads;
    stress_begin(&stress, &threads, 3, UINT32_MAX, 3000);
    unsigned received = receive(&order, dromon_port_take(stress.port));
    received += receive(&order, dromon_port_close(stress.port));
    threads_join(&threads);
    CHECK_EQ(received + stress.refused, 3 * stress.per_producer);
    CHECK(dromon_port_take(stress.port) == NULL);
    stress_end(&stress);
  }
}

int main(void) {
  RUN(a_new_port_is_empty_and_not_readable);
  RUN(the_fd_does_not_block_and_is_closed_on_exec);
  RUN(the_fd_is_closed_with_the_last_reference);
  RUN(a_burst_writes_the_eventfd_once);
  RUN(a_post_alone_does_not_tell_the_consumer);
  RUN(take_gives_the_oldest_first);
  RUN(a_notify_after_a_take_makes_it_readable_again);
  RUN(a_late_notify_makes_one_empty_round);
  RUN(a_look_leaves_what_it_was_told_for_take);
  RUN(a_look_in_vain_ends_too);
  RUN(close_gives_what_is_left_and_refuses_posts);
  RUN(a_taken_task_may_be_posted_again);
  RUN_THREADED(no_wake_up_is_lost);
  RUN_THREADED(a_flood_loses_nothing_and_keeps_each_producers_order);
  RUN_THREADED(a_close_amid_posts_leaves_each_task_with_one_side);
  return 0;
}
