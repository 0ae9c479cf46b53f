-- What wrk sends: a random path with a random body, each from a file of its own, one a line.
-- Arguments: method, file of paths, file of bodies (or -), seed. UNIQUE in a body becomes another word in each request.

local method, paths, bodies, seed
local sent = 0

local function lines(name)
   local found = {}
   for line in io.lines(name) do
      found[#found + 1] = line
   end
   return found
end

function init(arguments)
   method, seed = arguments[1], tonumber(arguments[4])
   paths = lines(arguments[2])
   if arguments[3] == "-" then
      for place, path in ipairs(paths) do
         paths[place] = wrk.format(method, path)
      end
   else
      bodies = lines(arguments[3])
   end
   math.randomseed(seed)
end

function request()
   local path = paths[math.random(#paths)]
   if not bodies then
      return path
   end
   sent = sent + 1
   local body = bodies[math.random(#bodies)]:gsub("UNIQUE", seed .. "-" .. sent)
   return wrk.format(method, path, nil, body)
end

function done(summary, latency)
   local errors = summary.errors
   io.write(string.format(
      '\n{"requests": %d, "seconds": %f, "p50": %f, "p99": %f, "failed": %d, "broken": %d}\n',
      summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
      errors.status, errors.connect + errors.read + errors.write + errors.timeout
   ))
end
