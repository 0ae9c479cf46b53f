"""Names, towns and spellings of seven populations, the most frequent names first.

They are composed by hand for the measurement of look-alikes and not taken from a list of real persons. They were
written without looking at the lists and weights of the service.
"""

from benchmarks.matching.people import (
    People,
    foreign_phone,
    name_list,
    south_african_phone,
    split_groups,
    split_short_forms,
    split_towns,
    split_words,
)

_SOUTH_AFRICAN_TOWNS = split_towns(
    "Soweto:1804:Gauteng; Katlehong:1431:Gauteng; Mamelodi:0122:Gauteng; Umlazi:4031:KwaZulu-Natal;"
    "Khayelitsha:7784:Western Cape; Mdantsane:5219:Eastern Cape; Polokwane:0699:Limpopo; Nelspruit:1200:Mpumalanga"
)
PEOPLE = {
    "South African": People(
        name_list(
            """Thandi Nomsa Lerato Zanele Precious Nthabiseng Sibongile Dikeledi Palesa Nomvula Thandeka Ayanda Refilwe
            Busisiwe Mpho Lindiwe Nokuthula Gugu Zodwa Portia Boitumelo Andiswa Puleng Tshepiso Rethabile Nobuhle
            Hlengiwe Fikile Masego Kagiso Onthatile Siphokazi Unathi Vuyiswa Bontle Naledi Dineo Khanyi Nolwazi
            Mmatshepo Rirhandzu Tintswalo Azwihangwisi Mudzunga Nompilo Lesedi Beauty Patience Gladys Grace""",
            0.75,
            0.12,
            "no ma tha ndi le ra to zi nga ku si bo mpho ka se di",
        ),
        name_list(
            """Sipho Thabo Themba Bongani Sibusiso Tshepo Lucky Mandla Siyabonga Mpho Kagiso Lebo Sizwe Katlego Vusi
            Tebogo Ayanda Thulani Nkosinathi Khotso Simphiwe Lwazi Jabu Musa Karabo Neo Tumelo Sello Pule Ntsikelelo
            Luthando Mzwandile Andile Xolani Rhulani Mashudu Ndivhuwo Khathutshelo Given Bheki Philani Sabelo
            Wandile Mthunzi Kabelo Lesego Joseph Petrus Johannes Elias""",
            0.75,
            0.12,
            "si pho tha bo mba nga ni ku zi lwa ndo mo se pe",
        ),
        name_list(
            """Dlamini Nkosi Ndlovu Khumalo Sithole Mokoena Mthembu Molefe Mahlangu Zulu Mkhize Mabaso Buthelezi Radebe
            Tshabalala Maluleke Baloyi Ngcobo Mokwena Zwane Nkuna Chauke Mashaba Modise Masilela Cele Gumede
            Shabangu Motaung Phiri Ntuli Maseko Mnguni Sibiya Hlongwane Mazibuko Jacobs Skosana Mofokeng Letsoalo
            Ramaphosa Netshitenzhe Mudau Nemakonde Makhubela Mthethwa Ngwenya Mbatha Vilakazi Majola""",
            0.7,
            0.2,
            "ma mo le ko ngo ba tha ne tshi ra ndla mbi khu lo za se",
        ),
        0.35,
        0.02,
        split_groups(
            "Thandi Tandi; Nthabiseng Ntabiseng Nthabeseng; Sibusiso Sbusiso; Sibongile Sbongile;"
            "Mokoena Mokwena; Tshabalala Shabalala; Sipho Siphu; Mthembu Mtembu; Buthelezi Butelezi;"
            "Dikeledi Dikhledi; Thabo Tabo"
        ),
        split_short_forms(
            "Sibongile Bongi; Nthabiseng Nthabi Thabi; Nokuthula Thuli; Siyabonga Siya; Sibusiso Sbu;"
            "Nkosinathi Nathi; Boitumelo Tumi; Tshepiso Tshepi; Hlengiwe Hleng; Katlego Kat;"
            "Mandla Mandlenkosi; Busisiwe Busi; Lindiwe Lindi"
        ),
        split_groups(
            "Thandi Thando; Thabo Thabang; Mpho Mphonyana; Zanele Zandile; Tshepo Tshepiso; Bontle Bonolo;"
            "Lerato Lesego; Nomsa Nomsi; Sipho Siphiwe; Lungile Lungelo; Karabo Kabelo;"
            "Neo Nea; Ayanda Andile"
        ),
        _SOUTH_AFRICAN_TOWNS,
        split_words("Mandela Main Sisulu Vilakazi Tambo Biko Church Zone_3 Extension_5 Section_B Hani Station"),
        south_african_phone,
    ),
    "British": People(
        name_list(
            """Susan Margaret Sarah Emma Patricia Elizabeth Mary Jane Karen Claire Nicola Helen Laura Charlotte Rebecca
            Chloe Jessica Amy Sophie Hannah Lucy Olivia Alice Victoria Katherine Gillian Deborah Joan Dorothy Ruth
            Emily Holly Megan Abigail Louise Tracey Wendy Sheila Barbara Ann Jacqueline Alison Gemma Leanne Kirsty
            Freya Imogen Beatrice Harriet Rosemary""",
            0.5,
            0.06,
            "el la ro se be th an ne ma ri ly",
        ),
        name_list(
            """David John Michael James Paul Peter Robert Andrew William Richard Christopher Mark Thomas Daniel Stephen
            Matthew Steven Simon Anthony Joseph George Jack Oliver Harry Charles Edward Benjamin Samuel Kevin Ian
            Alan Gary Keith Colin Graham Nigel Stuart Neil Philip Luke Adam Ryan Callum Connor Liam Jake Archie
            Alfie Rupert Duncan""",
            0.6,
            0.06,
            "al fre bert han wil mar cus ed don",
        ),
        name_list(
            """Smith Jones Taylor Brown Williams Wilson Johnson Davies Patel Robinson Wright Thompson Evans Walker
            White Roberts Green Hall Wood Jackson Clarke Harris Lewis Clark Turner Hill Cooper Morris Ward Moore
            King Baker Harrison Morgan Allen Edwards Scott Lee Parker Davis Bennett Cook Shaw Bell Murphy Hughes
            Khan O'Connor Campbell Fletcher""",
            0.5,
            0.45,
            "ham ton ley wick brad thorn ash field worth hol den stan mere croft",
        ),
        0.6,
        0.002,
        split_groups(
            "Katherine Catherine Kathryn; Steven Stephen; Sarah Sara; Claire Clare; Clark Clarke;Davis Davies"
        ),
        split_short_forms(
            "Elizabeth Liz Beth Betty; Margaret Maggie Peggy; Susan Sue; Patricia Pat Trish; Robert Bob Rob;"
            "William Bill Will; Richard Dick Rich; Christopher Chris; Michael Mick Mike; James Jim Jamie;"
            "Andrew Andy; Katherine Kate Kathy; Anthony Tony; Edward Ted Ed; Victoria Vicky; Rebecca Becky;"
            "Thomas Tom; Samuel Sam; Deborah Debbie; Daniel Dan"
        ),
        split_groups(
            "Jack Jake; Emma Emily; Chloe Zoe; Holly Polly; Jade Jada; Mia Maya; Lily Milly; Daniel David;"
            "Ella Ellie; Jayden Jaydon; Alfie Archie; Olivia Alivia; Ryan Bryan; Kara Cara"
        ),
        split_towns(
            "Leeds:LS7 4DQ:West Yorkshire;"
            "Cardiff:CF24 2AB:South Glamorgan;"
            "Bristol:BS5 6RT:Avon;"
            "Glasgow:G31 1PX:Lanarkshire;"
            "Croydon:CR0 2TA:London;"
            "Leicester:LE4 6JF:Leicestershire"
        ),
        split_words(
            "High Station Church Victoria Park Mill Queens Albert York Springfield Grange The_Crescent Windsor"
        ),
        foreign_phone("44", "77", 8),
    ),
    "Indian": People(
        name_list(
            """Sunita Anita Lakshmi Priya Pooja Asha Rekha Geeta Kavita Meena Savitri Radha Deepa Neha Shanti Usha Sita
            Manju Seema Kamala Sushila Jyoti Saraswati Nirmala Rani Divya Ananya Swati Aarti Preeti Padma Vijaya
            Indira Malini Fatima Gauri Leela Mamta Pushpa Saroj""",
            0.6,
            0.12,
            "ka vi ta su ni shi la pra mi ya dee pa ja",
        ),
        name_list(
            """Ramesh Rajesh Suresh Sanjay Vijay Anil Rahul Amit Ravi Krishna Mohan Ram Ashok Sunil Rakesh Mahesh
            Dinesh Arun Ganesh Deepak Vinod Manoj Lakshman Gopal Hari Prakash Kiran Naresh Mukesh Santosh Arjun
            Rohit Nikhil Venkatesh Srinivas Subramaniam Harpreet Gurpreet Imran Balaji""",
            0.6,
            0.12,
            "ra je shi va nan da ku ma ra vin dra pra",
        ),
        name_list(
            """Singh Kumar Devi Sharma Patel Naidoo Pillay Reddy Gupta Yadav Govender Shah Das Khan Verma Rao Joshi
            Nair Moodley Iyer Chetty Mishra Pandey Chaudhary Mukherjee Banerjee Agarwal Mehta Desai Naicker Jain
            Kaur Bhat Menon Krishnan Padayachee Chatterjee Kulkarni Thakur Trivedi""",
            0.85,
            0.15,
            "va ra na ya pa ti shri ku lan ga mur thy nath",
        ),
        0.3,
        0.03,
        split_groups(
            "Lakshmi Laxmi Luxmi; Geeta Gita; Pooja Puja; Chaudhary Choudhury Chowdhary;"
            "Krishna Krishnan Krushna; Mukherjee Mookerjee Mukherji; Banerjee Banerji; Aarti Arti;"
            "Preeti Priti; Moodley Moodly; Naidoo Naidu; Pillay Pillai; Chetty Chetti; Agarwal Aggarwal;"
            "Lakshman Laxman; Sunita Suneeta; Venkatesh Venkatesan"
        ),
        split_short_forms(
            "Rajesh Raj; Subramaniam Subbu Mani; Venkatesh Venky; Gurpreet Guri; Savitri Savi; Krishna Kris;Priya Pri"
        ),
        split_groups(
            "Ram Lakshman; Sunita Anita; Rajesh Ramesh; Suresh Mahesh; Harpreet Gurpreet; Sita Gita;"
            "Amit Sumit; Rohit Mohit; Asha Usha; Priya Riya; Seema Reema; Nisha Isha; Anil Sunil;"
            "Kavita Savita"
        ),
        split_towns(
            "Chatsworth:4092:KwaZulu-Natal;"
            "Phoenix:4068:KwaZulu-Natal;"
            "Lenasia:1827:Gauteng;"
            "Patna:800001:Bihar;"
            "Chennai:600017:Tamil Nadu;"
            "Ahmedabad:380009:Gujarat"
        ),
        split_words("Gandhi Nehru Station Temple Lotus M_G Lenasia Arbee Market Orient Havenside Rose"),
        foreign_phone("91", "98", 8),
    ),
    "Portuguese": People(
        name_list(
            """Maria Ana Francisca Antónia Adriana Juliana Márcia Fernanda Patrícia Aline Sandra Camila Amanda Bruna
            Jéssica Letícia Júlia Luciana Vanessa Mariana Gabriela Vera Vitória Larissa Cláudia Beatriz Rita Luana
            Sónia Rosa Joana Inês Catarina Conceição Luísa Teresa Helena Isabel Graça Lurdes""",
            0.95,
            0.05,
            "ma ri la ne cel da na ju ze li",
        ),
        name_list(
            """José João António Francisco Carlos Paulo Pedro Lucas Luís Marcos Gabriel Rafael Daniel Marcelo Bruno
            Eduardo Felipe Manuel Rodrigo Mateus André Fernando Fábio Leonardo Gustavo Guilherme Tiago Anderson
            Ricardo Márcio Jorge Sebastião Alexandre Roberto Vítor Armando Domingos Nelson Rui Joaquim""",
            0.85,
            0.05,
            "va ldo ni wel jo se mir al dir ro",
        ),
        name_list(
            """da_Silva dos_Santos Oliveira de_Souza Rodrigues Ferreira Alves Pereira Lima Gomes Ribeiro Costa Carvalho
            Almeida Lopes Soares Fernandes Vieira Barbosa Rocha Dias Nascimento Andrade Moreira Nunes Marques
            Machado Mendes Freitas Cardoso Ramos Gonçalves Santana Teixeira Macuácua Mabunda Sitoe Cossa Tembe
            Mondlane""",
            0.85,
            0.1,
            "bar ra li nho mar tel fon se ca ta ne",
        ),
        0.55,
        0.01,
        split_groups(
            "Souza Sousa; Luís Luiz; Antônio António Antonio; José Jose; João Joao; Vítor Victor;"
            "Felipe Filipe Phelipe; Tiago Thiago; Gonçalves Goncalves; Teresa Teresa Thereza; Matheus Mateus;"
            "Conceição Conceicao; Inês Ines; Patrícia Patricia; Júlia Julia; Letícia Leticia;"
            "Sónia Sônia Sonia; Jéssica Jessica; Sebastião Sebastiao"
        ),
        split_short_forms(
            "José Zé Zezinho; Francisco Chico; António Toninho Tó; Manuel Mané Nelo; Francisca Chica;"
            "Fernanda Nanda; Luciana Lu; Eduardo Edu Dudu; Gabriela Gabi; Isabel Bela; Maria Mariazinha;"
            "Teresa Teté; Joaquim Quim"
        ),
        split_groups(
            "Maria Mariana; José João; Luís Luísa; Bruno Bruna; Daniel Daniela; Adriano Adriana;"
            "Marcelo Marcelino; Rafael Gabriel; Vitória Vitor; Ana Anaís; Juliana Luciana; Paulo Paula;"
            "Aline Alice; Tiago Diogo"
        ),
        split_towns(
            "São Paulo:01310-100:SP;"
            "Rio de Janeiro:20040-020:RJ;"
            "Salvador:40020-000:BA;"
            "Maputo:1100:Maputo;"
            "Lisboa:1100-148:Lisboa;"
            "Rosettenville:2130:Gauteng"
        ),
        split_words(
            "Rua_das_Flores Rua_da_Paz Avenida_Brasil Rua_Sete_de_Setembro Rua_Direita Avenida_Eduardo_Mondlane"
        ),
        foreign_phone("55", "119", 8),
    ),
    "Chinese": People(
        name_list(
            """Xiaoyan Hong Li Mei Yan Ying Fang Xiuying Min Jing Lihua Juan Na Xia Yan_Ling Xiumei Ting Xue Lan Hui
            Yuzhen Guiying Meiling Xiaoling Shuzhen Ping Qian Jie Yue Yuhan Zihan Siyu Wenjing Jiayi Xinyi""",
            0.35,
            0.3,
            "xiao li mei yu wen jia xin hui yan fang ling hua zhen qing shu",
        ),
        name_list(
            """Wei Jianguo Ming Qiang Jun Lei Yong Jie Tao Chao Gang Ping Hui Peng Bin Hao Jianhua Zhiqiang Guoqiang
            Xiaoming Haoran Yichen Zihao Jianjun Weidong Guodong Dong Bo Long Feng Hai Kai Hua Liang Zhiyong""",
            0.35,
            0.3,
            "jian guo zhi wei ming xiao jun hua dong hai tao wen bo rui ze",
        ),
        name_list(
            """Wang Li Zhang Liu Chen Yang Huang Zhao Wu Zhou Xu Sun Ma Zhu Hu Guo He Lin Gao Luo Zheng Liang Xie Song
            Tang Xu Han Feng Deng Cao Peng Zeng Xiao Tian Dong Pan Yuan Cai Jiang Yu""",
            0.55,
            0.01,
            "ou yang si tu shang guan",
        ),
        0.0,
        0.003,
        split_groups(
            "Wang Wong; Zhang Chang Cheung; Chen Chan Tan; Li Lee; Liu Lau; Huang Wong; Zhou Chow; Xu Hsu;"
            "Wu Ng; Lin Lam Lim; Zheng Cheng; Xie Tse Hsieh; Zhao Chao Chiu; Guo Kwok; Cai Choi Tsai;"
            "Xiaoming Hsiaoming"
        ),
        split_short_forms("Wei David; Mei May; Jie Jay; Hong Helen; Ming Michael; Xiaoling Linda"),
        split_groups(
            "Jianguo Jianhua; Xiaoming Xiaohong; Meiling Meihua; Guodong Guoqiang; Jing Jin; Yan Yun;"
            "Zihan Zixuan; Wei Wen; Lihua Lihong; Xinyi Xinyu; Haoran Haotian; Jiayi Jiaqi"
        ),
        split_towns(
            "Cyrildene:2198:Gauteng;"
            "Guangzhou:510000:Guangdong;"
            "Shanghai:200000:Shanghai;"
            "Hong Kong:999077:Kowloon;"
            "Edenvale:1609:Gauteng"
        ),
        split_words("Derrick Nanjing Zhongshan Renmin Jiefang Marcia Friedland Friendship"),
        foreign_phone("86", "138", 8),
    ),
    "Somali": People(
        name_list(
            """Fatima Amina Halima Hawa Khadija Maryam Asha Sahra Fadumo Hodan Ayan Naima Zeinab Safia Ifrah Hamdi Nimo
            Aisha Hibo Ubah Rahma Sumaya Layla Noor Habiba Faiza Idil Sagal Deqa Muna""",
            0.9,
            0.03,
            "ha li ma sa ra fa du mo ay an",
        ),
        name_list(
            """Mohamed Ahmed Ali Abdi Hassan Abdullahi Omar Ibrahim Yusuf Hussein Ismail Abdirahman Mahad Said Bashir
            Osman Mustafa Khalid Abdulkadir Farah Jama Adan Mukhtar Hamza Liban Guled Nur Salah Faisal Samatar""",
            1.0,
            0.02,
            "ab di na sir ka rim ha mud ra shi",
        ),
        name_list(
            """Mohamed Ali Hassan Ahmed Abdi Hussein Omar Ibrahim Yusuf Farah Warsame Osman Adan Jama Isse Abdullahi
            Nur Mohamud Abukar Salad Roble Hersi Egal Duale Gedi Shire Barre Elmi Guled Samatar""",
            0.9,
            0.03,
            "war sa me ga bo ye shi re ge di",
        ),
        0.75,
        0.35,
        split_groups(
            "Mohamed Mohammed Muhammad Mahamed Maxamed Muhamad; Ahmed Ahmad Axmed;"
            "Hussein Husein Hussain Xuseen; Hassan Hasan Xasan; Abdi Cabdi; Ali Cali Aly; Omar Umar Cumar;"
            "Yusuf Yousuf Youssef Yuusuf; Said Saeed Saciid; Fatima Fatuma Faduma Fatma;"
            "Khadija Khadra Khadijah Qadiija; Maryam Mariam Maryan; Amina Aamina Aminah;"
            "Abdullahi Abdulahi Abdillahi; Ibrahim Ebrahim Ibraahim; Osman Othman Cismaan;"
            "Halima Haleema Xaliimo; Abdirahman Abdulrahman Abdurahman; Mohamud Mahmoud Mahamud;"
            "Asha Caasha Aisha; Nur Noor Nuur; Ismail Ismael"
        ),
        split_short_forms(
            "Mohamed Moh Mo; Abdirahman Abdi; Abdullahi Abdi; Khadija Khadi; Fatima Fatu; Ibrahim Ibra;Yusuf Yusu"
        ),
        split_groups(
            "Hassan Hussein; Amina Amira; Fatima Fadumo; Muna Mina; Abdi Abdirahman; Hodan Hoda; Safia Sofia;"
            "Nimo Nima; Hamza Hamse; Liban Libin; Sahra Sahro; Halima Salima"
        ),
        split_towns(
            "Mayfair:2092:Gauteng;"
            "Bellville:7530:Western Cape;"
            "Nairobi:00610:Nairobi;"
            "Garissa:70100:Garissa;"
            "Mogadishu:1001:Banadir;"
            "Hargeisa:2001:Maroodi Jeex"
        ),
        split_words("Eighth Somali Market Mosque Eastleigh Jam Block_C Section_2 Hawl_Wadaag Voortrekker"),
        foreign_phone("252", "61", 7),
    ),
    "Afrikaans": People(
        name_list(
            """Maria Johanna Anna Elizabeth Susanna Magdalena Hester Petronella Aletta Cornelia Annelie Elmarie
            Marietjie Chantelle Riana Ilse Anneke Karin Liezel Marlene Sonja Tanya Adri Charlene Melanie Cecilia
            Jacoba Martha Catharina Wilhelmina""",
            0.75,
            0.04,
            "an ne li ma rie tte jo han na el",
        ),
        name_list(
            """Johannes Pieter Jan Hendrik Jacobus Willem Petrus Andries Daniel Gerhardus Francois Christiaan Stefan
            Marthinus Jaco Gert Johan Frederik Nicolaas Barend Abraham Schalk Cornelis Dawid Riaan Deon Ruan Wikus
            Dirk Louis""",
            0.8,
            0.04,
            "ja co hen ri pie wil lem ru an stef",
        ),
        name_list(
            """van_der_Merwe Botha Pretorius van_Wyk Venter Nel Coetzee Smit Fourie du_Plessis Kruger Jacobs Steyn
            Swanepoel van_Zyl Jansen Erasmus Visser Vermeulen de_Villiers le_Roux Swart Viljoen du_Toit Joubert
            van_Niekerk Steenkamp Marais Bezuidenhout Engelbrecht Oosthuizen Potgieter Lombard Vorster Grobler
            de_Vries de_Jong Bakker Mulder Meijer""",
            0.65,
            0.15,
            "van berg hof man kerk stein burg bos dorp huis",
        ),
        0.75,
        0.003,
        split_groups(
            "Francois François; Christiaan Christian; Nicolaas Nicolas Niklaas; Frederik Fredrik; Dawid David;"
            "Pieter Piet; Coetzee Coetsee Coetzer; Smit Smith; Meijer Meyer; Catharina Catherina Katharina;"
            "Petronella Pieternella; Vries Vreis; Steyn Stein; Jansen Janse; Cornelis Cornelius"
        ),
        split_short_forms(
            "Johannes Jannie Hannes Johan; Hendrik Hennie Henk; Jacobus Kobus Koos; Petrus Piet;"
            "Willem Willie Wim; Daniel Danie; Christiaan Christo Chris; Marthinus Tinus;"
            "Elizabeth Elsie Bettie; Magdalena Lena Magda; Susanna Sannie Susan; Johanna Hanna Joey;"
            "Maria Ria Marie; Gerhardus Gerhard Gert; Petronella Nellie; Cornelia Corrie; Wilhelmina Willa"
        ),
        split_groups(
            "Jan Johan; Anneke Annelie; Ruan Ruhan; Johanna Johannes; Pieter Petrus; Liezel Liezl;"
            "Jaco Jacques; Riana Riaan; Marli Marni; Karin Karien; Stefan Stefanus; Deon Leon; Mia Lia"
        ),
        split_towns(
            "Pretoria:0084:Gauteng;"
            "Bloemfontein:9301:Free State;"
            "Paarl:7646:Western Cape;"
            "Rotterdam:3011 AB:Zuid-Holland;"
            "Utrecht:3511 CE:Utrecht;"
            "Kempton Park:1619:Gauteng"
        ),
        split_words("Kerk Voortrekker Hertzog Church Steyn Eike Dorp Molen Long Protea Jakaranda"),
        south_african_phone,
    ),
}
"""The populations by name."""
