%% A new gen_tcp connection for every operation, by 8 processes; ends with the line ANSWERED WRONG FDS.
%% Run by escript. Usage: loop.erl inet|socket|active, the first two of which are backends of gen_tcp.
-mode(compile).

open_files() ->
    {ok, Names} = file:list_dir("/proc/self/fd"),
    length(Names).

value_of(Key) ->
    "value-of-" ++ Key.

%% As most programs have it: lines come as messages, and TCP_NODELAY is set; gen_tcp then sets
%% SO_PRIORITY as well, to what it was.
options("active") ->
    [{active, true}, {nodelay, true}];
options("socket") ->
    [{inet_backend, socket}, {active, false}];
options("inet") ->
    [{inet_backend, inet}, {active, false}].

line(Socket, "active") ->
    receive
        {tcp, Socket, Line} -> Line
    after 10000 -> "nothing"
    end;
line(Socket, _) ->
    {ok, Line} = gen_tcp:recv(Socket, 0, 10000),
    Line.

look_up(Host, Port, How, Key) ->
    {ok, Socket} = gen_tcp:connect(Host, Port, options(How) ++ [list, {packet, line}], 10000),
    Value = value_of(Key),
    ok = gen_tcp:send(Socket, io_lib:format("set ~s 0 0 ~b\r\n~s\r\nget ~s\r\n",
                                            [Key, length(Value), Value, Key])),
    [_, _, Found, _] = [line(Socket, How) || _ <- lists:seq(1, 4)],
    ok = gen_tcp:close(Socket),
    string:trim(Found).

worker(Parent, Host, Port, How, Numbers) ->
    [begin
         Key = "key-" ++ integer_to_list(Number),
         Found = look_up(Host, Port, How, Key),
         Parent ! {Key, Found}
     end || Number <- Numbers].

count(0, Answered, Wrong) ->
    {Answered, Wrong};
count(Left, Answered, Wrong) ->
    receive
        {Key, Found} ->
            case value_of(Key) of
                Found -> count(Left - 1, Answered + 1, Wrong);
                _ ->
                    io:format(standard_error, "~s has ~s~n", [Key, Found]),
                    count(Left - 1, Answered, Wrong + 1)
            end
    after 30000 ->
        {Answered, Wrong}
    end.

main([How]) ->
    [Server, Port] = string:split(os:getenv("APP_SERVER"), ":"),
    {ok, Host} = inet:parse_address(Server),
    Operations = list_to_integer(os:getenv("APP_OPERATIONS")),
    Concurrency = list_to_integer(os:getenv("APP_CONCURRENCY")),
    Self = self(),
    Files = open_files(),
    [spawn(fun() -> worker(Self, Host, list_to_integer(Port), How,
                           lists:seq(First, Operations - 1, Concurrency)) end)
     || First <- lists:seq(0, Concurrency - 1)],
    {Answered, Wrong} = count(Operations, 0, 0),
    io:format("~b ~b ~b~n", [Answered, Wrong, open_files() - Files]),
    halt(if Answered =:= Operations -> 0; true -> 1 end).
