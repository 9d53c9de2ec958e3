# Sidekiq: jobs at work, waiting, scheduled, done, to be tried again, and one that a worker gave back when it was stopped.

require "json"

ENV["REDIS_URL"] ||= ARGV.first
require "sidekiq"

Sidekiq.logger.level = Logger::ERROR
Redis.silence_deprecations = true if defined?(Redis)

class Work
  include Sidekiq::Worker

  def perform(seconds)
    Sidekiq.redis { |server| server.lpush("began", jid) }
    raise "to be tried again" if seconds.negative?

    sleep seconds
  end
end

# A worker loads this file too, for its jobs alone.
return if Sidekiq.server?

WORKERS = []

def enqueue(queue, *seconds)
  seconds.each { |each| Work.set(queue: queue).perform_async(each) }
end

# Jobs enqueued later are younger by more than any rounding.
def oldest
  before = Time.now.to_f
  yield
  [before, Time.now.to_f].tap { sleep 0.05 }
end

# Start a worker, and wait for as many jobs to begin.
def worker(queue, jobs, threads)
  # Its output is its log. A second after it is told to stop it gives back what is not done.
  options = ["--require", __FILE__, "--queue", queue, "--concurrency", threads.to_s, "--timeout", "1"]
  WORKERS << spawn("sidekiq", *options, out: :err)
  patience = Time.now + 20
  until Sidekiq.redis { |server| server.llen("began") } == jobs
    abort "no worker began #{jobs} jobs of #{queue}" if Time.now > patience
    sleep 0.01
  end
  Sidekiq.redis { |server| server.del("began") }
end

def stop(signal)
  pid = WORKERS.pop
  Process.kill(signal, pid)
  Process.wait(pid)
end

def told(queue, waiting, oldest = nil)
  { queue: queue, waiting: waiting, running: nil, delayed: nil, oldest: oldest }
end

begin
  enqueue("idle", 0)
  worker("idle", 1, 1)

  # What is given back is as old as before, and the next.
  given_back = oldest { enqueue("reports", 60) }
  worker("reports", 1, 1)
  enqueue("reports", 60, 60)
  stop(:TERM)

  # The third begins when the first has failed, so none is taken after it.
  enqueue("mail", -1, 60, 60)
  worker("mail", 3, 2)
  waiting = oldest { enqueue("mail", 60) }
  enqueue("mail", 60, 60)
  4.times { Work.set(queue: "mail").perform_in(60, 60) }

  puts JSON.generate([told("idle", 0), told("reports", 3, given_back), told("mail", 3, waiting)])
  $stdout.flush
  $stdin.read
ensure
  stop(:KILL) until WORKERS.empty?
end
