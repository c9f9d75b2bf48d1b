/* sanitizers.h - which sanitizer the code is compiled for: UNDER_ASAN, UNDER_TSAN, each 0 or 1. */
#ifndef DROMON_CORE_SANITIZERS_H
#define DROMON_CORE_SANITIZERS_H

/* gcc defines the macros, clang has the features. */
#ifndef __has_feature
#define __has_feature(name) 0
#endif
#if defined(__SANITIZE_THREAD__) || __has_feature(thread_sanitizer)
#define UNDER_TSAN 1
#else
#define UNDER_TSAN 0
#endif
#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
#define UNDER_ASAN 1
#else
#define UNDER_ASAN 0
#endif

#endif
