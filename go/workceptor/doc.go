// Package workceptor runs units of work: commands on this node, and units that live on other nodes of the mesh. It
// keeps them in a data directory in the form that other Receptor nodes use, and it is a library in its own right: the
// control service is one of its users.
//
// The example runs a command; a unit for another node differs in its Node only, and that of [Mesh] shows what it takes to have
// two nodes. A work type of one's own is a [Handler].
//
// # Rooms
//
// Package unit has the records and the state machine and makes no I/O; store has the directories; runner is the process
// around one command; proc looks at processes; remote speaks the control protocol as a client. This package ties them
// together: engine.go has the table of units, types.go that of work types, job.go one unit in memory, admission.go the
// queue of those that must wait, command.go, function.go and remote.go the three workers, mirror.go and push.go what follow a unit on
// another node, follow.go what tells another node of a unit here, results.go the readers, bulk.go what copies much, signing the signatures, watch_linux.go the notification.
//
// # Promises
//
// A unit is durable before [Engine.Submit] returns its ID, and its payload before the unit waits in the queue, or is sent to
// another node. A unit that a command is to do at once is durable by the journal in the directory of the node, from which the next
// start makes it anew, until its own directory is, a second later at most, or it is released. A command that starts at once is not run again after a loss of power, so nothing waits for its payload to be
// durable. The result of a command is durable about 50 ms after it was told of, unless it is released before; if the node
// dies meanwhile the kernel writes it in its own time. Every method may be called from any goroutine. Nothing polls that could be told: the kernel
// tells of status and output files and of the end of a runner, and every reader, waiter and subscriber is woken at
// once. Replies come from memory, which follows the files. [Engine.Close] waits for all goroutines; runners and their
// commands go on and are taken up by the next engine. Unit IDs that come from outside are looked up in memory only, so
// none of them ever becomes a path.
//
// # Decisions
//
// Where other implementations differ or say nothing, this one does the following.
//
// Canceled is complete: results end, monitoring ends. A cancel that takes more than three seconds (five for a unit
// elsewhere) is answered "pending" and goes on. A cancel reaches a unit in every phase: one that waits for its payload
// is Canceled at once (a remote one Failed, "Locally Cancelled") and its [Submission.Start] answers [ErrCancelled]. A
// release does not return until the directory is gone, unless it is answered "pending".
//
// A runner that dies without a last word fails its unit with "Runner died", at once or at the next start, and the
// processes of its command are killed if the process group can be told for certain. A unit directory that is taken
// away while its command runs ends the command and fails the unit with "Unit directory is gone"; a unit that another node does ends so when its work does. A status file that somebody spoils or
// takes away meanwhile is written anew from what runner and node know. One that belongs to another user, and cannot be read
// for that, is left as it is: the Detail begins with "Cannot be read" and says whose it is, the State stays as it was last
// seen (Pending if it never was), and only a release with force takes the unit off the list, not off the disk. A Pending
// unit found at start is failed with "Pending at restart" unless its runner lives, or it has its payload and never had a runner: then it
// is started now. A unit directory sees one runner in its life, whoever starts a second. A unit whose type is not offered any more is shown
// with "Unknown WorkType", but is watched, and can be cancelled and released. An unfinished unit of a kind that this package
// does not know, or a pod's while no work type has pods, fails with "Failed to restart: ..." and the Reason "restart": what it
// has on other machines is not touched.
//
// Units of this node beyond the limits (of all, or of their type) wait as Pending, "Queued", with their whole payload on
// disk, and are started in the order of their submits; the queue of one type does not hold up another. They go on waiting
// after a restart, but those that a function was to do fail with "Pending at restart", as their parameters are not
// stored. What runs at a restart counts, even if that is more than the limit. The answer to the submit of a unit that
// must wait is "Job Submitted".
//
// A unit that a function of this program does has the Detail "Running" and no Pid. It ends with the program: Failed,
// "Killed" if the engine was closed, "Failed to restart: ..." if it was not, both with the Reason "restart".
//
// Complete units are kept until somebody releases them, unless [Limits] say otherwise: then the oldest of too many, and
// those that are too old, are released as a client would, at most once a second. A clock that is set meanwhile makes no unit old,
// and ends no time to live; the dates of units are those that it showed, but none ends before its start. One whose output is being read is no
// exception.
//
// Where the node may make cgroups (a subtree that was delegated to it, or the root of what a container sees) each
// command has one of its own, so that nothing of it survives a runner that was killed. Elsewhere what has left the
// command's process group is known by the variable RECEPTOR_UNIT_DIR of its environment; only a process that has cleared
// that, too, is not found. What a command leaves behind when it ends by itself goes on in either case. A runner that does not
// end within 20 s of a cancel is killed, and all that it has started.
//
// An interactive unit ([Engine.Exec]) is listed like others, but its output goes to its client only, it does not wait in
// the queue, and it is released when its client has been told of its end or has gone, be it with the node. Python work is run by an interpreter
// instead of a runner, without a cgroup; one that goes on 10 s after a cancel gets SIGTERM and then SIGKILL, with all that it
// has started.
//
// Units of Kubernetes work ([Engine.RegisterKubernetes]) are pods, and a process of the program receptor-kubernetes attends to each.
// One whose process dies while the pod runs gets another, which goes on at the exact byte, three times in the life of an
// engine. A pod that was not Running yet when its process was lost is deleted. So is that of a released unit; a cluster that does
// not do that holds up no release, and the log tells what may be left there. The definition of a pod leaves the status
// file when the cluster has it; the access to the cluster stays there until the release, which needs it.
//
// The units of one node are used by one engine at a time. One that is started while another goes on has none, and makes none until that
// has ended; it takes up those that are there when it is started again.
//
// Secret parameters of a unit elsewhere leave its status file when the executor has the unit, or never will. A unit whose type
// wanted signatures wants them also when the type is not offered any more.
//
// A loss of power in the moment before a result is durable may leave the unit Failed, "Runner died", with the Reason "rebooted", or
// less output than StdoutSize says, which StdoutSHA256 shows.
//
// Commands are run by a pool of runners, each of which does one unit at a time. Up to 32 for each processor wait for the next
// unit, for five seconds at most. The first is started while the payload of its unit is on its way. A runner that was started
// under another umask, user, directory, priority, signal disposition, set of capabilities or limit than the process has now is
// not used. A unit whose runner was killed before it began is given to another one.
// After a node was killed in the moment before a runner began, its unit is given to another runner, too; whichever takes the lock
// of the unit first does it. That the payload was complete is then known by the file runner.lock, which the node makes before a
// runner has the unit; after a start of the machine the payload may be lost all the same, and the unit is Failed, "Pending at
// restart", with the Reason "rebooted". Until the command has run for 10 ms, or has ended, the status file says what it said
// before.
//
// A released unit is gone at once; the room that it had on the disk is free a moment later. A few empty directories are kept for the
// units to come while the engine is open.
//
// Of output that grows faster than its checksum is computed, the final state, and the end for those who read, come first, here and
// on the node that has submitted the unit, and StdoutSHA256 follows; [Engine.Wait] waits for it. Who still reads the output then
// has the processor first, for 5 s at most and where units need not wait for others. If the session with the executor breaks in
// that moment, it is asked again for a minute; the submitting node itself does not ask when it was started anew.
//
// While a command runs, StdoutSize in memory follows the output file at once; the status file follows every 250 ms at
// most. The status file of a remote unit follows a moment later, 50 ms at most, with what the node would find out again if
// it died before: that the executor has the unit and how it is getting on, but not its end. StdoutSize is brought up to
// date with each change of state.
//
// A remote unit becomes complete when the executor's is and all its output is on disk here, whole and synced. Until
// then it shows the last state before. Output beyond the final StdoutSize is not copied. If five results streams in a
// row bring nothing although output is missing, the rest does not exist: the unit ends with what there is, StdoutSize
// says so, and a warning is logged. A unit that is complete here keeps its state when the executor has lost it.
// Of large output that is read here as it comes, what has been read leaves the kernel's memory for files once it is on disk.
//
// A payload of 1 MiB or more sets out for an executor of this implementation while it still comes, and its end is sent
// when all of it is durable here. If that breaks off, the executor deletes its half unit, and the payload is sent anew
// from the file.
//
// A remote submit that breaks off is tried again. If the executor had named its unit already, that unit is asked about
// first: one that has its payload counts as started, a half one is released. A half payload is never ended such that
// the executor could take it for whole. Submissions have names: an executor of this implementation makes one unit of a
// submission however often it is repeated, and deletes units whose payload broke off, so nothing is left of an attempt whose
// answer was lost. One that does not know names keeps such a unit as Failed until somebody releases it there, and is asked twice,
// a second apart, whether a unit is half before that is given up.
//
// So work is done once, but for two windows. On a node that does not know names: the session broke with the end of the
// payload on its way, and that arrives later than the second question, a second or more after the break, and before the
// release that follows it. The unit then begins there, the release kills it, and it is begun anew. Closing that needs an
// executor that compares and deletes in one step, which the base protocol has no word for. On every node: it does not know the
// unit any more when it is asked, since somebody has released it there, or its directory is lost, between the break and
// the question. That looks like a unit that was never begun, and it is submitted again. Work that must not be
// done twice under these two has to recognise its own traces. In the other direction nothing is lost in silence: a unit
// that such a node has failed with "Pending at restart" counts as started, since one cannot know, and ends as Failed here.
//
// A refusal fails the unit, also in the background, and in the middle of the payload, if the executor's disk is full, say. "unknown work unit" is success
// for cancel and release. A unit whose time to live ends before its executor has all of it
// is Failed, "Work unit expired on ...", also while its payload is still coming, and whoever waits for the start hears that. A restart resumes what was not started, its payload permitting, and respects the expiration;
// a cancel or release that was not delivered is delivered, and a cancelled unit stays listed.
//
// An executor of this implementation pushes status and output over one stream. Others are polled, and their results streamed
// over a second session. ExitCode, Signal, Reason, StdoutSHA256 and the times of start and end are the executor's; of an
// existing node, which does not tell them, the Detail tells the code and the reason, and the clock here the times. Output
// that was not copied in one go is compared with StdoutSHA256, and copied anew if it differs: after a loss of power a file
// may have kept its length and lost its content.
//
// An executor that comes to refuse the signature of a unit that runs there, or a key that is gone, is no end: the unit keeps its
// state, its Detail becomes "Error following remote unit: " and the words of the refusal, and the output is asked for again
// until it is given. A cancel or release answers with those words; a forced release deletes the unit here.
//
// Tokens are made anew at every attempt, so a time to live that is longer than theirs is no reason for a warning.
//
// Attempts to reach an executor are made after 1 s, 1.5 s and so on up to a minute, and at once when the mesh says that
// the node has become reachable. The status is polled after 10 ms at first and at most a second later while nothing
// changes; the results stream is open from the start.
//
// The payload of a cancelled submission is read no further; [Engine.Submit] refuses the type name "remote" and records
// larger than 16 MiB. On Linux before 5.3 the end of a runner is seen by its lock instead of a pidfd, so one that dies
// before it has taken the lock is noticed at the next start only. Where the user's inotify instances or watches are used
// up, units are polled once a second and a warning says so. A process that closes an engine and lives on keeps runners
// that end after that as zombies until another engine takes their units up.
package workceptor
