/* The yardstick: sends the packets of a live stream to N viewers with send(2), and does nothing else.
 *
 *   send_loop PORT VIEWERS SECONDS MERGE_MS PACKETS
 *
 * PACKETS is a text file, a line "due_us bytes" for each packet, repeated for as long as needed. Listens on PORT of the
 * loopback, waits for all viewers, sends for SECONDS, prints one line of JSON.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAX_PACKETS 100000
#define MAX_VIEWERS 20000
#define MAX_BURST (8 << 20)

static long due_us[MAX_PACKETS];
static size_t size_of[MAX_PACKETS];
static int viewer[MAX_VIEWERS];
static char payload[MAX_BURST];

static double cpu_seconds(void)
{
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return used.ru_utime.tv_sec + used.ru_stime.tv_sec + (used.ru_utime.tv_usec + used.ru_stime.tv_usec) * 1e-6;
}

static void sleep_until(const struct timespec *start, long us)
{
    struct timespec at = *start;
    at.tv_sec += us / 1000000;
    at.tv_nsec += us % 1000000 * 1000;
    if (at.tv_nsec >= 1000000000) {
        at.tv_sec++;
        at.tv_nsec -= 1000000000;
    }
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL) == EINTR) { }
}

int main(int argc, char **argv)
{
    if (argc != 6)
        return fprintf(stderr, "usage: send_loop PORT VIEWERS SECONDS MERGE_MS PACKETS\n"), 2;
    int count = atoi(argv[2]);
    long seconds = atol(argv[3]), merge_us = atol(argv[4]) * 1000;
    FILE *file = fopen(argv[5], "r");
    long packets = 0;
    if (!file || count > MAX_VIEWERS)
        return perror(argv[5]), 1;
    while (packets < MAX_PACKETS && fscanf(file, "%ld %zu", &due_us[packets], &size_of[packets]) == 2)
        packets++;
    fclose(file);

    int one = 1, listening = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    setsockopt(listening, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listening, (void *) &address, sizeof address) || listen(listening, 4096))
        return perror("listen"), 1;
    printf("{\"ready\": true}\n");
    fflush(stdout);
    for (int i = 0; i < count; i++) {
        viewer[i] = accept(listening, NULL, NULL);
        setsockopt(viewer[i], IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    }

    struct timespec start;
    clock_gettime(CLOCK_MONOTONIC, &start);
    double cpu = cpu_seconds();
    long round_us = due_us[packets - 1] + (packets > 1 ? due_us[1] - due_us[0] : 33333), sent_us = 0;
    size_t burst = 0, total = 0;
    for (long n = 0;; n++) {
        long at = n / packets * round_us + due_us[n % packets];
        if (at > seconds * 1000000)
            break;
        sleep_until(&start, at);
        burst += size_of[n % packets];
        if (at - sent_us < merge_us && burst < MAX_BURST / 2)
            continue;
        for (int i = 0; i < count; i++) {
            ssize_t sent = send(viewer[i], payload, burst, MSG_DONTWAIT | MSG_NOSIGNAL);
            if (sent > 0)
                total += sent;
        }
        burst = 0;
        sent_us = at;
    }
    printf("{\"cores\": %.4f, \"bytes\": %zu}\n", (cpu_seconds() - cpu) / seconds, total);
    return 0;
}
